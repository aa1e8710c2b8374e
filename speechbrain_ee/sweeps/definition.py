"""What a search is: the content of an ``hpopt.yaml``.

Plain data, read with a loader that builds no objects.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ruamel.yaml
from ruamel.yaml.error import YAMLError

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.sweeps.base_yaml import BaseYAML
from speechbrain_ee.sweeps.objective import (
    Objective,
    check_keys,
    read_objectives,
)
from speechbrain_ee.sweeps.pruning import Pruning
from speechbrain_ee.sweeps.sampling import check_sampler
from speechbrain_ee.sweeps.space import Parameter

OUTPUT = "output_folder"


@dataclass(frozen=True)
class Definition:
    """A search.

    Arguments
    ---------
    base : str
        YAML that is varied.
    script : str
        ``train.py`` that runs it.
    sampler : str
        One of :data:`~speechbrain_ee.sweeps.sampling.SAMPLERS`.
    seed : int
        Of the sampler.
    trials : int
        Points.
    objectives : tuple of Objective
        One or two.
    space : tuple of Parameter
        What is searched.
    overrides : dict of str to object
        What is the same in all trials.
    prune : Pruning, optional
        When a trial is given up early.
    crashes : int
        How often a training may fail before its point is given up.
    stale_s : float
        Seconds without a sign of life after which a worker on another
        machine is taken for dead.
    launcher : dict of str to object
        Parameters of submitit.
    """

    base: str
    script: str
    sampler: str
    seed: int
    trials: int
    objectives: tuple[Objective, ...]
    space: tuple[Parameter, ...]
    overrides: dict[str, Any] = field(default_factory=dict)
    prune: Pruning | None = None
    crashes: int = 2
    stale_s: float = 300.0
    launcher: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        path: Path,
        overrides: Mapping[str, Any] | None = None,
        trials: int | None = None,
    ) -> "Definition":
        """Read a file.

        Arguments
        ---------
        path : Path
            An ``hpopt.yaml``; the paths in it are relative to its folder.
        overrides : mapping of str to object, optional
            Further keys that are the same in all trials.
        trials : int, optional
            Instead of those of the file.

        Returns
        -------
        Definition

        Raises
        ------
        InputError
            If something in it is unknown or cannot be.
        """
        path = path.resolve()
        try:
            given = _read_yaml(path)
            if trials is not None:
                given["trials"] = trials
            for key in ("base", "script"):
                if isinstance(given.get(key), str):
                    given[key] = str((path.parent / given[key]).resolve())
            if overrides:
                fixed = given.get("overrides") or {}
                given["overrides"] = {**_mapping(fixed), **overrides}
            return cls.parse(given)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> "Definition":
        """Check what a file, or a study, holds.

        Arguments
        ---------
        given : mapping
            Plain data.

        Returns
        -------
        Definition

        Raises
        ------
        InputError
            If something in it is unknown or cannot be.
        """
        check_keys("the file", given, cls)
        for key in ("base", "script", "objectives", "space"):
            if not given.get(key):
                raise InputError(f"{key}: missing or empty.")
        values = dict(given)
        objectives = read_objectives(given["objectives"])
        space = _space(given["space"])
        sampler = values.setdefault("sampler", "qmc")
        seed = _whole(values.setdefault("seed", 0), "seed", 0)
        asked = values.get("trials")
        if asked is not None:
            _whole(asked, "trials", 1)
        values.update(
            objectives=objectives,
            space=space,
            seed=seed,
            trials=check_sampler(sampler, space, asked),
            prune=_pruning(given.get("prune"), objectives),
        )
        _whole(values.get("crashes", 1), "crashes", 1)
        _whole(values.get("stale_s", 30), "stale_s", 1)
        for key in ("overrides", "launcher"):
            values[key] = _mapping(values.get(key) or {}, key)
        return cls(**values)

    def check(self, base: BaseYAML) -> None:
        """Refuse keys that the varied YAML does not have.

        Arguments
        ---------
        base : BaseYAML
            The varied YAML.

        Raises
        ------
        InputError
            With the key, before anything runs.
        """
        for what, keys in (
            ("overrides", list(self.overrides)),
            ("space", [key for each in self.space for key in each.keys]),
        ):
            for key in keys:
                base.check(key, what)
                if key == OUTPUT:
                    raise InputError(
                        f"{what}: {OUTPUT} is set by the search, a folder per "
                        "trial; leave it out."
                    )
        if not Path(self.script).is_file():
            raise InputError(
                f"script: {self.script} is not there; name a train.py, "
                "relative to the sweep's own file."
            )

    def plain(self) -> dict[str, Any]:
        """The same as plain data, which :meth:`parse` reads."""
        data = asdict(self)
        data["space"] = {
            parameter.key: _plain_parameter(parameter)
            for parameter in self.space
        }
        data["objectives"] = [asdict(each) for each in self.objectives]
        return data

    def what_counts(self) -> dict[str, Any]:
        """The part on which all that join a study must agree."""
        same = replace(self, crashes=1, stale_s=1.0, launcher={}, script="s")
        data = replace(same, base="b").plain()
        del data["trials"]
        # as it is read back from a study
        return json.loads(json.dumps(data, default=str))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            content = ruamel.yaml.YAML(typ="safe", pure=True).load(stream)
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(
            f"cannot be read ({cause}); searches lie in hparams/sweeps/."
        ) from None
    except YAMLError as error:
        raise InputError(
            f"is no plain YAML ({one_line(error)}); a search holds data only, "
            "no tags."
        ) from None
    if not isinstance(content, dict):
        raise InputError("holds no keys; see hparams/sweeps/ for examples.")
    return content


def _mapping(given: Any, key: str = "overrides") -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"{key}: {given!r} is no mapping.")
    return dict(given)


def _space(given: Any) -> tuple[Parameter, ...]:
    if not isinstance(given, Mapping):
        raise InputError(f"space: {given!r} is no mapping.")
    space = tuple(Parameter.parse(key, each) for key, each in given.items())
    counts = Counter(key for parameter in space for key in parameter.keys)
    key, count = counts.most_common(1)[0]
    if count > 1:
        raise InputError(f"space: {key} is searched in two places.")
    return space


def _pruning(given: Any, objectives: tuple[Objective, ...]) -> Pruning | None:
    if given is None:
        return None
    if len(objectives) > 1:
        raise InputError(
            "prune: Optuna prunes searches with one objective only; leave "
            "prune out, or the second objective."
        )
    if objectives[0].metric != "wer":
        raise InputError(
            "prune: epochs are compared by their validation WER, so the "
            "objective must be wer."
        )
    check_keys("prune", given, Pruning)
    return Pruning(**given)


def _plain_parameter(parameter: Parameter) -> dict[str, Any]:
    if parameter.choices:
        return {"kind": parameter.kind, "choices": list(parameter.choices)}
    data = {
        key: getattr(parameter, key)
        for key in ("kind", "low", "high", "log", "step")
    }
    if parameter.step is None:
        del data["step"]
    return data


def _whole(value: Any, name: str, least: int) -> Any:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or value < least or (name != "stale_s" and value != int(value)):
        raise InputError(f"{name}: {value!r} must be at least {least}.")
    return value
