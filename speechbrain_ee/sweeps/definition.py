"""What a sweep is: the content of an ``hpopt.yaml``, and the YAML it varies.

Both are plain data: neither file is executed.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import difflib
import itertools
import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import ruamel.yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from ruamel.yaml.error import YAMLError

from speechbrain_ee.errors import InputError, one_line

OUTPUT = "output_folder"
METRICS = ("wer", "macs", "layers")
POLICIES = ("ltt", "naive")
LAST = "last"
PRUNERS = ("median", "halving", "threshold")
# All but tpe give point n the values that follow from the seed and n alone.
SAMPLERS = ("random", "qmc", "grid", "tpe")
_BOUNDS = {"kind", "low", "high", "log", "step"}
_FIELDS = {
    "float": _BOUNDS,
    "int": _BOUNDS,
    "categorical": {"kind", "choices"},
    "together": {"kind", "choices"},
}
_DIGITS = 6  # significant digits of a drawn number


@contextmanager
def quiet() -> Iterator[None]:
    """What this room uses of Optuna is experimental in name only."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


# ---- The YAML that is varied -----------------------------------------------


class BaseYAML:
    """A recipe's YAML whose keys can be given other values.

    Comments, references and tags stay, so that what a sweep writes is a YAML
    that a person can read and run again.

    Example
    -------
    >>> base = BaseYAML("lr: 0.1  # peak\\nloss: !new:x.Y\\n    a: 1\\n")
    >>> print(base.with_values({"lr": 1e-05, "loss.a": [2]}), end="")
    lr: 1.0e-05 # peak
    loss: !new:x.Y
        a: [2]
    """

    def __init__(self, text: str, source: str = "YAML") -> None:
        self.text = text
        self.source = source
        try:
            self._tree = _yaml().load(text)
        except YAMLError as error:
            raise InputError(
                f"{source}: is no YAML ({one_line(error)})."
            ) from None
        if not isinstance(self._tree, Mapping):
            raise InputError(f"{source}: holds no keys.")

    @classmethod
    def read(cls, path: Path) -> "BaseYAML":
        """Read a file."""
        try:
            return cls(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InputError(
                f"base: {path} cannot be read ({cause}); name a YAML of the "
                "recipe, relative to the sweep's own file."
            ) from None

    def __contains__(self, key: str) -> bool:
        return key in self._tree

    def check(self, key: str, what: str) -> None:
        """Refuse a key that the YAML does not have; ``what`` gave it."""
        parts = key.split(".")
        node = self._tree
        for depth, part in enumerate(parts):
            if not isinstance(node, Mapping):
                outer = ".".join(parts[:depth])
                raise InputError(
                    f"{what}: {key} leads into {outer}, which in "
                    f"{self.source} is no mapping; give {outer} as a whole."
                )
            if part not in node:
                close = difflib.get_close_matches(part, list(node), n=3)
                raise InputError(
                    f"{what}: {self.source} has no key {key}. "
                    + (
                        f"Did you mean {' or '.join(close)}?"
                        if close
                        else f"Known keys: {', '.join(sorted(node))}."
                    )
                )
            node = node[part]

    def with_values(self, values: Mapping[str, Any]) -> str:
        """The YAML with other values, by key with dots into mappings.

        A mapping changes the keys that it names, anything else replaces what
        is there.
        """
        tree = copy.deepcopy(self._tree)
        for key, value in values.items():
            *outer, last = key.split(".")
            node = tree
            for part in outer:
                node = node[part]
            _put(node, last, value)
        text = StringIO()
        _yaml().dump(tree, text)
        return text.getvalue()


def _put(node: Any, key: str, value: Any) -> None:
    there = node.get(key)
    if isinstance(value, Mapping) and isinstance(there, Mapping):
        for inner, each in value.items():
            _put(there, inner, each)
        return
    node[key] = _flow(value)


def _flow(value: Any) -> Any:
    """Lists and mappings on one line, as the recipe writes them."""
    if isinstance(value, list):
        listed = ruamel.yaml.comments.CommentedSeq(map(_flow, value))
        listed.fa.set_flow_style()
        return listed
    if isinstance(value, Mapping):
        mapped = ruamel.yaml.comments.CommentedMap(
            (key, _flow(each)) for key, each in value.items()
        )
        mapped.fa.set_flow_style()
        return mapped
    return value


def _represent_float(representer: Any, value: float) -> Any:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")  # YAML 1.1 wants the point
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _yaml() -> ruamel.yaml.YAML:
    yaml = ruamel.yaml.YAML()
    yaml.width = 4096  # a folded line would end what a reader takes for a key
    yaml.preserve_quotes = True
    yaml.indent(mapping=4, sequence=6, offset=4)
    yaml.representer.add_representer(float, _represent_float)
    yaml.representer.add_representer(type(None), _represent_null)
    return yaml


# ---- What is searched, and for what ----------------------------------------


@dataclass(frozen=True)
class Parameter:
    """A key of the YAML and the values that it may take.

    ``distribution`` is the same for Optuna, which keeps lists and mappings as
    JSON; ``entry`` is what the file says. Of the kind together, choices set
    several keys at once, and ``key`` is a name for people.

    Example
    -------
    >>> Parameter.parse("k", {"low": 2, "high": 9, "step": 3}).values
    (2, 5, 8)
    >>> Parameter.parse("exit_layers", {"choices": [[2, 4], [4]]}).values
    ([2, 4], [4])
    """

    key: str
    entry: dict[str, Any]
    distribution: BaseDistribution
    choices: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, key: str, given: Any) -> "Parameter":
        """Read one entry of ``space``."""
        if not isinstance(given, Mapping):
            raise _wrong(key, f"{given!r} is no mapping")
        kind = given.get("kind", _likely_kind(given))
        if kind not in _FIELDS:
            raise _wrong(key, f"kind {kind!r} is none of {', '.join(_FIELDS)}")
        unknown = sorted(given.keys() - _FIELDS[kind])
        if unknown:
            valid = ", ".join(sorted(_FIELDS[kind]))
            raise _wrong(key, f"{unknown[0]!r} is no field of {kind}: {valid}")
        entry = {**given, "kind": kind}
        if "choices" not in _FIELDS[kind]:
            return cls(key, entry, _numbers(key, entry))
        choices = given.get("choices")
        if not isinstance(choices, list) or not choices:
            raise _wrong(key, "choices must be a list of at least one value")
        labels = [_label(choice) for choice in choices]
        if len(set(map(repr, labels))) < len(labels):
            raise _wrong(key, "a choice is there twice")
        if kind == "together" and not all(
            isinstance(choice, Mapping) for choice in choices
        ):
            raise _wrong(key, "choices of kind together are mappings")
        return cls(key, entry, CategoricalDistribution(labels), tuple(choices))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the YAML that it sets."""
        return tuple(
            {
                key: 0
                for choice in self.choices or (None,)
                for key in self.settings(choice)
            }
        )

    def settings(self, value: Any) -> dict[str, Any]:
        """What a value sets in the YAML, by key."""
        together = self.entry["kind"] == "together"
        return value if together else {self.key: value}

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values if they are finitely many, else None."""
        if self.choices:
            return self.choices
        known = self.distribution
        if known.step is None or known.log:
            return None
        steps = round((known.high - known.low) / known.step)
        values = (known.low + n * known.step for n in range(steps + 1))
        if isinstance(known, IntDistribution):
            return tuple(values)
        return tuple(float(f"{value:.12g}") for value in values)

    def suggest(self, trial: optuna.Trial) -> Any:
        """The value that a trial has, or is given now."""
        known = self.distribution
        if self.choices:
            shown = trial.suggest_categorical(self.key, known.choices)
        else:
            ask = (
                trial.suggest_int
                if isinstance(known, IntDistribution)
                else trial.suggest_float
            )
            options = {"step": known.step, "log": known.log}
            shown = ask(self.key, known.low, known.high, **options)
        return self.meant(shown)

    def shown(self, value: Any) -> Any:
        """A value as Optuna keeps it."""
        return _label(value) if self.choices else value

    def meant(self, shown: Any) -> Any:
        """The value that Optuna keeps as this, see :meth:`shown`.

        A number has as many digits as a person would write.
        """
        known = self.distribution
        if self.choices:
            return self.choices[known.choices.index(shown)]
        if isinstance(known, IntDistribution) or known.step is not None:
            return shown
        return min(max(float(f"{shown:.{_DIGITS}g}"), known.low), known.high)


def _label(choice: Any) -> Any:
    if isinstance(choice, list | dict):
        return json.dumps(choice, sort_keys=True)
    return choice


def _likely_kind(given: Mapping[str, Any]) -> str:
    if "choices" in given:
        return "categorical"
    bounds = (given.get("low"), given.get("high"))
    return "int" if all(isinstance(b, int) for b in bounds) else "float"


def _numbers(key: str, entry: Mapping[str, Any]) -> BaseDistribution:
    kind = int if entry["kind"] == "int" else float
    bounds: dict[str, Any] = {}
    for name in ("low", "high", "step"):
        value = entry.get(name)
        if value is None and name == "step":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(key, f"{name}: {value!r} is no number")
        if not math.isfinite(value) or kind(value) != value:
            raise _wrong(
                key, f"{name}: {value!r} is not for kind {entry['kind']}"
            )
        bounds[name] = kind(value)
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise _wrong(key, f"log: {log!r} is neither true nor false")
    if log and "step" in bounds:
        raise _wrong(key, "log and step exclude each other")
    if bounds["low"] >= bounds["high"]:
        raise _wrong(key, "low must be below high")
    try:
        with warnings.catch_warnings():
            # the last value may lie below high
            warnings.filterwarnings("ignore", ".* not divisible by `step`")
            known = IntDistribution if kind is int else FloatDistribution
            return known(**bounds, log=log)
    except ValueError as error:  # of step, or of low on a log scale
        raise _wrong(key, one_line(error).rstrip(".")) from None


def _wrong(key: str, what: str) -> InputError:
    return InputError(
        f"space, {key}: {what}; write for example {{low: 0.0001, high: 0.01, "
        "log: true}} or {choices: [[2, 4, 6], [1, 6]]}.".replace("}}", "}")
    )


@dataclass(frozen=True)
class Objective:
    """A number of a trained model that shall become small.

    ``metric`` is wer (percent), macs or layers (per utterance) of the set
    ``set``, measured ``at`` the last exit, an exit counted from 1, or the
    policy that was calibrated by ltt or naive.

    Example
    -------
    >>> Objective("wer", "dev-clean", 3).label
    'wer dev-clean exit 3'
    """

    metric: str
    set: str
    at: str | int = LAST

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(
                f"objectives: metric {self.metric!r} is none of "
                f"{', '.join(METRICS)}."
            )
        if not isinstance(self.set, str):
            raise InputError(
                "objectives: `set` is missing; name the set that a trial is "
                "judged on, for example the development set."
            )
        counted = isinstance(self.at, int) and self.at >= 1
        if self.at is True or not (counted or self.at in (LAST, *POLICIES)):
            raise InputError(
                f"objectives: at: {self.at!r} is no operating point; give "
                f"{LAST}, an exit counted from 1, or {' or '.join(POLICIES)}."
            )

    @property
    def label(self) -> str:
        """For tables: metric, set and operating point."""
        at = f"exit {self.at}" if isinstance(self.at, int) else self.at
        return f"{self.metric} {self.set} {at}"


@dataclass(frozen=True)
class Pruning:
    """When a trial is given up, by the last exit's validation WER.

    ``median`` (worse than half of the others at the same epoch) and
    ``halving`` (not in the best quarter at epochs n, 4 n, 16 n) compare with
    the trials before, so they depend on the order of events; ``threshold``
    (above ``upper`` percent) does not.
    """

    kind: str = "median"
    after_epochs: int = 1
    startup_trials: int = 5
    upper: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in PRUNERS:
            raise InputError(
                f"prune: kind {self.kind!r} is none of {', '.join(PRUNERS)}."
            )
        for name, least in (("after_epochs", 1), ("startup_trials", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(
                    f"prune: {name}: {value!r} must be a whole number, at "
                    f"least {least}."
                )
        if (self.upper is not None) != (self.kind == "threshold"):
            raise InputError(
                "prune: `upper` (percent) belongs to kind threshold, and "
                "kind threshold needs it."
            )

    def pruner(self) -> optuna.pruners.BasePruner:
        """The same for Optuna."""
        after, pruners = self.after_epochs, optuna.pruners
        if self.kind == "median":
            return pruners.MedianPruner(self.startup_trials, after)
        if self.kind == "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=after)
        return pruners.ThresholdPruner(upper=self.upper, n_warmup_steps=after)


# ---- The whole file --------------------------------------------------------


@dataclass(frozen=True)
class Definition:
    """A sweep; the keys are described in ``docs/sweeps.md``."""

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
    stale_s: float = 120.0
    storage: str = ""
    launcher: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        path: Path,
        overrides: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> "Definition":
        """Read an ``hpopt.yaml``; what is in ``changes`` replaces its keys.

        ``overrides`` are further keys that are the same in all trials.
        """
        path = path.resolve()
        try:
            given = _read_yaml(path)
            given |= {k: v for k, v in changes.items() if v is not None}
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
        """Check what a file, or a study, holds."""
        _check_keys("the file", given, cls)
        for key in ("base", "script", "objectives", "space"):
            if not given.get(key):
                raise InputError(f"{key}: missing or empty.")
        values = dict(given)
        values["objectives"] = _objectives(given["objectives"])
        values["space"] = _space(given["space"])
        values.setdefault("sampler", "qmc")
        values["seed"] = _at_least(0, "seed", given.get("seed", 0))
        values["trials"] = _trials(values)
        values["prune"] = _pruning(given.get("prune"), values["objectives"])
        _at_least(1, "crashes", values.get("crashes", 1))
        _at_least(1, "stale_s", values.get("stale_s", 1), whole=False)
        for key in ("overrides", "launcher"):
            values[key] = _mapping(values.get(key) or {}, key)
        if not isinstance(values.get("storage", ""), str):
            raise InputError(
                f"storage: {values['storage']!r} is no URL; give for example "
                "postgresql+psycopg://user@host/database."
            )
        return cls(**values)

    def check(self, base: BaseYAML) -> None:
        """Refuse keys that the varied YAML does not have."""
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
        space = {each.key: each.entry for each in self.space}
        objectives = [asdict(each) for each in self.objectives]
        data = asdict(replace(self, space=()))
        return {**data, "space": space, "objectives": objectives}

    def what_counts(self) -> dict[str, Any]:
        """The part on which all that join a study must agree."""
        same = replace(self, crashes=1, stale_s=1.0, launcher={}, script="s")
        data = replace(same, base="b").plain()
        del data["trials"]
        # as it is read back from a study
        return json.loads(json.dumps(data, default=str))

    def points(self) -> list[dict[str, Any]]:
        """The values of all points, which follow from the seed alone.

        Not of ``tpe``, whose values follow from the trials before.
        """
        if self.sampler == "grid":
            product = itertools.product(*(each.values for each in self.space))
            keys = [each.key for each in self.space]
            first = itertools.islice(product, self.trials)
            return [dict(zip(keys, values, strict=True)) for values in first]
        samplers = optuna.samplers
        with quiet():
            study = optuna.create_study(
                sampler=samplers.RandomSampler(self.seed)
                if self.sampler == "random"
                else samplers.QMCSampler(scramble=True, seed=self.seed)
            )
        # Choices by their place: Sobol sequences know no categories.
        asked = {
            each.key: IntDistribution(0, len(each.choices) - 1)
            if each.choices
            else each.distribution
            for each in self.space
        }
        # The Sobol sequence begins after a first trial, which tells the space.
        lowest = {key: each.low for key, each in asked.items()}
        study.add_trial(
            optuna.create_trial(params=lowest, distributions=asked, value=0.0)
        )
        drawn = [study.ask(asked).params for _ in range(self.trials)]
        return [
            {
                each.key: each.choices[point[each.key]]
                if each.choices
                else each.meant(point[each.key])
                for each in self.space
            }
            for point in drawn
        ]


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


def _check_keys(what: str, given: Any, cls: type) -> None:
    valid = [each.name for each in fields(cls)]
    if not isinstance(given, Mapping):
        raise InputError(f"{what}: {given!r} is no mapping.")
    for key in given:
        if key not in valid:
            raise InputError(
                f"{what} has the unknown key {key!r}; known keys: "
                f"{', '.join(valid)}."
            )


def _mapping(given: Any, key: str = "overrides") -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"{key}: {given!r} is no mapping.")
    return dict(given)


def _objectives(given: Any) -> tuple[Objective, ...]:
    if not isinstance(given, list) or len(given) not in (1, 2):
        raise InputError("objectives: give a list of one or two.")
    for each in given:
        _check_keys("objectives", each, Objective)
    found = tuple(
        Objective(each.get("metric"), each.get("set"), each.get("at", LAST))
        for each in given
    )
    if len(set(found)) < len(found):
        raise InputError("objectives: the same one is there twice.")
    return found


def _space(given: Any) -> tuple[Parameter, ...]:
    if not isinstance(given, Mapping):
        raise InputError(f"space: {given!r} is no mapping.")
    space = tuple(Parameter.parse(key, each) for key, each in given.items())
    counts = Counter(key for parameter in space for key in parameter.keys)
    key, count = counts.most_common(1)[0]
    if count > 1:
        raise InputError(f"space: {key} is searched in two places.")
    return space


def _trials(values: Mapping[str, Any]) -> int:
    """How many points there are; a grid has so many as it has."""
    sampler, asked = values["sampler"], values.get("trials")
    if asked is not None:
        _at_least(1, "trials", asked)
    if sampler not in SAMPLERS:
        raise InputError(
            f"sampler: {sampler!r} is none of {', '.join(SAMPLERS)}."
        )
    if sampler != "grid":
        if asked is None:
            raise InputError(
                f"trials: missing; {sampler} must be told how many points to "
                "try, for example trials: 32."
            )
        return asked
    space: Sequence[Parameter] = values["space"]
    for parameter in space:
        if parameter.values is None:
            raise InputError(
                f"space, {parameter.key}: a grid needs values that can be "
                "counted: give choices, or a step without log."
            )
    size = math.prod(len(parameter.values) for parameter in space)
    return size if asked is None else min(size, asked)


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
    _check_keys("prune", given, Pruning)
    return Pruning(**given)


def _at_least(least: int, name: str, value: Any, whole: bool = True) -> Any:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or value < least or (whole and value != int(value)):
        raise InputError(f"{name}: {value!r} must be at least {least}.")
    return value
