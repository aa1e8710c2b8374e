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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import optuna
import ruamel.yaml
from msgspec.structs import force_setattr, replace
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from ruamel.yaml.error import YAMLError

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.files import read_text
from speechbrain_ee.schema import (
    Count,
    Finite,
    Positive,
    Record,
    convert,
    plain,
)

OUTPUT = "output_folder"
POLICIES = ("ltt", "naive")
LAST = "last"
_DIGITS = 6  # significant digits of a drawn number
_EXAMPLES = "examples are in hparams/sweeps/, the keys in docs/sweeps.md"
_OWN = {"trials", "crashes", "stale_s", "launcher", "script", "base"}


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Optuna says of steps and of what it calls experimental."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", ".* not divisible by `step`")
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
                f"{source}: not YAML ({one_line(error)})."
            ) from None
        if not isinstance(self._tree, Mapping):
            raise InputError(f"{source}: holds no keys.")

    @classmethod
    def read(cls, path: Path) -> "BaseYAML":
        """Read a file."""
        remedy = "base names a YAML of the recipe, relative to the sweep's file"
        return cls(read_text(path, remedy), str(path))

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
                    f"{what}: {outer} of {key} is not a mapping in "
                    f"{self.source}; give {outer} as a whole."
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
        made = ruamel.yaml.comments.CommentedSeq(map(_flow, value))
    elif isinstance(value, Mapping):
        made = ruamel.yaml.comments.CommentedMap(
            (key, _flow(each)) for key, each in value.items()
        )
    else:
        return value
    made.fa.set_flow_style()
    return made


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


class Parameter(Record, omit_defaults=True):
    """The values that a key of the YAML may take: a range, or choices.

    Choices of the kind together are mappings that set several keys at once;
    the parameter's own key is then only a name.

    Example
    -------
    >>> Parameter(low=2, high=9, step=3).values
    [2, 5, 8]
    >>> Parameter(choices=[[2, 4], [4]]).kind
    'categorical'
    """

    kind: Literal["float", "int", "categorical", "together"] | None = None
    low: int | Finite | None = None
    high: int | Finite | None = None
    log: bool = False
    step: int | Finite | None = None
    choices: list[Any] | None = None

    def __post_init__(self) -> None:
        bounds = (self.low, self.high)
        if self.kind is None:
            whole = all(isinstance(bound, int) for bound in bounds)
            numbers = "int" if whole else "float"
            kind = numbers if self.choices is None else "categorical"
            force_setattr(self, "kind", kind)
        if self.kind in ("float", "int"):
            if self.choices is not None or None in bounds:
                raise ValueError(f"kind {self.kind} needs low and high only")
            if self.low >= self.high:
                raise ValueError("low must be below high")
            if self.log and self.step is not None:
                raise ValueError("log and step exclude each other")
            given = (*bounds, self.step or 0)
            if self.kind == "int" and any(int(n) != n for n in given):
                raise ValueError("kind int needs whole numbers")
        elif self.choices is None or self.log or {*bounds, self.step} != {None}:
            raise ValueError(f"kind {self.kind} needs choices only")
        else:
            labels = [repr(_label(choice)) for choice in self.choices]
            if len(set(labels)) < len(labels):
                raise ValueError("a choice is there twice")
            mappings = [isinstance(each, Mapping) for each in self.choices]
            if self.kind == "together" and not all(mappings):
                raise ValueError("choices of kind together are mappings")
        _ = self.distribution  # Optuna raises ValueError for what is left

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna, which keeps lists and mappings as JSON."""
        if self.choices is not None:
            return CategoricalDistribution([_label(c) for c in self.choices])
        if self.kind == "int":
            known, number = IntDistribution, int
        else:
            known, number = FloatDistribution, float
        options: dict[str, Any] = {"log": self.log}
        if self.step is not None:
            options["step"] = number(self.step)
        with quiet():
            return known(number(self.low), number(self.high), **options)

    def settings(self, key: str, value: Any) -> dict[str, Any]:
        """What a value sets in the YAML, by key."""
        return value if self.kind == "together" else {key: value}

    @property
    def values(self) -> list[Any] | None:
        """All values if they are finitely many, else None."""
        if self.choices is not None:
            return self.choices
        known = self.distribution
        if known.step is None or known.log:
            return None
        steps = round((known.high - known.low) / known.step)
        values = (known.low + n * known.step for n in range(steps + 1))
        if self.kind == "int":
            return list(values)
        return [float(f"{value:.12g}") for value in values]

    def suggest(self, key: str, trial: optuna.Trial) -> Any:
        """The value that a trial has, or is given now."""
        known = self.distribution
        if self.choices is not None:
            return self.meant(trial.suggest_categorical(key, known.choices))
        ask = getattr(trial, f"suggest_{self.kind}")
        options = {"step": known.step, "log": known.log}
        return self.meant(ask(key, known.low, known.high, **options))

    def shown(self, value: Any) -> Any:
        """A value as Optuna keeps it."""
        return value if self.choices is None else _label(value)

    def meant(self, shown: Any) -> Any:
        """The value that Optuna keeps as this, see :meth:`shown`.

        A number has as many digits as a person would write.
        """
        known = self.distribution
        if self.choices is not None:
            return self.choices[known.choices.index(shown)]
        if self.kind == "int" or known.step is not None:
            return shown
        return min(max(float(f"{shown:.{_DIGITS}g}"), known.low), known.high)


def _label(choice: Any) -> Any:
    if isinstance(choice, list | dict):
        return json.dumps(choice, sort_keys=True)
    return choice


class Objective(Record):
    """A number of a trained model that shall become small.

    ``metric`` is wer (percent), macs or layers (per utterance) of the set
    ``set``, measured ``at`` the last exit, an exit counted from 1, or the
    policy that was calibrated by ltt or naive.

    Example
    -------
    >>> Objective("wer", "dev-clean", 3).label
    'wer dev-clean exit 3'
    """

    metric: Literal["wer", "macs", "layers"]
    set: str
    at: Literal["last", "ltt", "naive"] | Positive = LAST

    @property
    def label(self) -> str:
        """For tables: metric, set and operating point."""
        at = f"exit {self.at}" if isinstance(self.at, int) else self.at
        return f"{self.metric} {self.set} {at}"


class Pruning(Record):
    """When a trial is given up, by the last exit's validation WER.

    ``median`` (worse than half of the others at the same epoch) and
    ``halving`` (not in the best quarter at epochs n, 4 n, 16 n) compare with
    the trials before, so they depend on the order of events; ``threshold``
    (above ``upper`` percent) does not.
    """

    kind: Literal["median", "halving", "threshold"] = "median"
    after_epochs: Positive = 1
    startup_trials: Count = 5
    upper: Finite | None = None

    def __post_init__(self) -> None:
        if (self.upper is not None) != (self.kind == "threshold"):
            raise ValueError("kind threshold, and no other, needs `upper`")

    def pruner(self) -> optuna.pruners.BasePruner:
        """The same for Optuna."""
        after, pruners = self.after_epochs, optuna.pruners
        if self.kind == "median":
            return pruners.MedianPruner(self.startup_trials, after)
        if self.kind == "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=after)
        return pruners.ThresholdPruner(upper=self.upper, n_warmup_steps=after)


# ---- The whole file --------------------------------------------------------


class Definition(Record):
    """A sweep; the keys are described in ``docs/sweeps.md``.

    All samplers but tpe give point n the values that follow from the seed and
    n alone. A grid has as many ``trials`` as points, or fewer.
    """

    base: str
    script: str
    objectives: Annotated[
        list[Objective], msgspec.Meta(min_length=1, max_length=2)
    ]
    space: Annotated[dict[str, Parameter], msgspec.Meta(min_length=1)]
    sampler: Literal["random", "qmc", "grid", "tpe"] = "qmc"
    seed: Count = 0
    trials: Positive | None = None
    overrides: dict[str, Any] = {}
    prune: Pruning | None = None
    crashes: Positive = 2
    stale_s: Annotated[float, msgspec.Meta(ge=1.0)] = 120.0
    storage: str = ""
    launcher: dict[str, Any] = {}

    def __post_init__(self) -> None:
        labels = [each.label for each in self.objectives]
        if len(set(labels)) < len(labels):
            raise ValueError("objectives: the same one is there twice")
        key, count = Counter(self.varied).most_common(1)[0]
        if count > 1:
            raise ValueError(f"space: {key} is searched in two places")
        if self.sampler == "grid":
            size = math.prod(map(len, self._columns()))
            trials = min(size, self.trials or size)
            force_setattr(self, "trials", trials)
        elif self.trials is None:
            raise ValueError(
                f"trials: missing; {self.sampler} must be told how many points "
                "to try, for example trials: 32"
            )
        if self.prune and len(labels) > 1:
            raise ValueError(
                "prune: Optuna prunes searches with one objective only; leave "
                "prune out, or the second objective"
            )
        if self.prune and self.objectives[0].metric != "wer":
            raise ValueError(
                "prune: epochs are compared by their validation WER, so the "
                "objective must be wer"
            )

    @classmethod
    def read(cls, path: Path, **changes: Any) -> "Definition":
        """Read an ``hpopt.yaml``; what is in ``changes`` replaces its keys."""
        path = path.resolve()
        reader = ruamel.yaml.YAML(typ="safe", pure=True)
        try:
            given = reader.load(read_text(path, _EXAMPLES))
        except YAMLError as error:
            raise InputError(
                f"{path}: not YAML without tags ({one_line(error)}); "
                f"{_EXAMPLES}."
            ) from None
        if isinstance(given, dict):
            given |= {k: v for k, v in changes.items() if v is not None}
            given = {k: v for k, v in given.items() if v is not None}
        found = convert(given, cls, path, _EXAMPLES)
        return replace(
            found,
            base=str((path.parent / found.base).resolve()),
            script=str((path.parent / found.script).resolve()),
        )

    @property
    def varied(self) -> list[str]:
        """Keys of the YAML that differ between trials."""
        keys: list[str] = []
        for name, each in self.space.items():
            choices = each.choices if each.kind == "together" else [None]
            keys += dict.fromkeys(
                key for value in choices for key in each.settings(name, value)
            )
        return keys

    def check(self, base: BaseYAML) -> None:
        """Refuse keys that the varied YAML does not have."""
        for what, keys in (
            ("overrides", self.overrides),
            ("space", self.varied),
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

    def what_counts(self) -> dict[str, Any]:
        """The part on which all that join a study must agree."""
        # as it is read back from a study
        data = json.loads(json.dumps(plain(self)))
        return {key: data[key] for key in data if key not in _OWN}

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a point sets in the YAML, by key."""
        found = dict(self.overrides)
        for key, each in self.space.items():
            found |= each.settings(key, values[key])
        return found

    def points(self) -> list[dict[str, Any]]:
        """The values of all points, which follow from the seed alone.

        Not of ``tpe``, whose values follow from the trials before.
        """
        if self.sampler == "grid":
            product = itertools.product(*self._columns())
            first = itertools.islice(product, self.trials)
            return [dict(zip(self.space, point)) for point in first]
        samplers = optuna.samplers
        with quiet():
            study = optuna.create_study(
                sampler=samplers.RandomSampler(self.seed)
                if self.sampler == "random"
                else samplers.QMCSampler(scramble=True, seed=self.seed)
            )
        # Choices by their place: Sobol sequences know no categories.
        asked = {
            key: IntDistribution(0, len(each.choices) - 1)
            if each.choices
            else each.distribution
            for key, each in self.space.items()
        }
        # The Sobol sequence begins after a first trial, which tells the space.
        lowest = {key: each.low for key, each in asked.items()}
        study.add_trial(
            optuna.create_trial(params=lowest, distributions=asked, value=0.0)
        )
        drawn = [study.ask(asked).params for _ in range(self.trials)]
        return [
            {
                key: each.choices[point[key]]
                if each.choices
                else each.meant(point[key])
                for key, each in self.space.items()
            }
            for point in drawn
        ]

    def _columns(self) -> list[list[Any]]:
        """The values of each parameter, for a grid."""
        columns = {key: each.values for key, each in self.space.items()}
        for key, values in columns.items():
            if values is None:
                raise ValueError(
                    f"space, {key}: a grid needs values that can be counted: "
                    "give choices, or a step without log"
                )
        return list(columns.values())
