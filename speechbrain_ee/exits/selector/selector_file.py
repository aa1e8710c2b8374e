"""A learned selector as a file, schema ``exit-selector/1``.

One JSON object, compressed with gzip: the exits, the evidence read, the
weights, the character n-gram model, and ``explanation``, the share of the
predictions that each family of evidence makes (for readers; it is not read
back). Equal selectors give equal bytes.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from msgspec.structs import astuple

from speechbrain_ee.exits.criteria.ngram import ngram_content, parse_ngram
from speechbrain_ee.exits.selector.features import FAMILIES
from speechbrain_ee.exits.selector.selector import LearnedSelector, Ridge
from speechbrain_ee.exits.selector.value import WIDTH, WordValue
from speechbrain_ee.exits.selector.words import WORD_FEATURES
from speechbrain_ee.files import write_json
from speechbrain_ee.schema import Finite, Positive, Record, plain, read_record

SCHEMA = "exit-selector/1"
_REMEDY = "train the selector again from a development trace"
# As torch names the parameters of the networks.
_PARAMETERS = [f"{n}.{kind}" for n in (0, 2, 4) for kind in ("weight", "bias")]
# Numbers of double precision; what single precision holds; standard deviations.
_Doubles = tuple[Finite, ...]
_Single = Annotated[float, Meta(ge=-3.4e38, le=3.4e38)]
_Singles = tuple[_Single, ...]
_Scales = tuple[Annotated[float, Meta(ge=1e-38, le=3.4e38)], ...]


class _Ridge(Record):
    names: tuple[str, ...]
    mean: _Doubles
    scale: _Scales
    weights: tuple[_Doubles, ...]
    bias: _Doubles
    shares: _Doubles

    def __post_init__(self) -> None:
        for name in self.names:
            if name.partition(" ")[0] not in FAMILIES:
                raise ValueError(f"no feature is called {name[:100]!r}")
        *by_name, bias, shares = astuple(self)
        widths = {len(bias), *map(len, self.weights)}
        if len({len(shares), *map(len, by_name)}) > 1 or len(widths) > 1:
            raise ValueError("names and numbers differ in length")


class _WordValue(Record):
    exits: Positive
    mean: _Singles
    scale: _Scales
    members: tuple[dict[str, tuple[_Single | _Singles, ...]], ...]

    def __post_init__(self) -> None:
        count = len(WORD_FEATURES)
        if not len(self.mean) == len(self.scale) == count:
            raise ValueError(f"mean and scale need {count} numbers each")
        shapes = (WIDTH, count + self.exits), (WIDTH,), (WIDTH, WIDTH), (WIDTH,)
        shapes = (*shapes, (self.exits, WIDTH), (self.exits,))
        for member in self.members:
            found = {name: np.shape(each) for name, each in member.items()}
            if found != dict(zip(_PARAMETERS, shapes)):
                raise ValueError(f"a network of {found}, not of {shapes}")


class _SelectorFile(Record):
    schema: Literal["exit-selector/1"]
    exit_layers: tuple[Positive, ...]
    evidence: tuple[str, ...]
    explanation: Any
    ridges: tuple[_Ridge, ...]
    word_value: _WordValue | None
    language_model: dict[str, Any] | None
    steps: tuple[dict[str, _Doubles], ...]

    def __post_init__(self) -> None:
        layers, value = self.exit_layers, self.word_value
        exits = len(layers)
        if not exits or [*layers] != sorted({*layers}):
            raise ValueError(f"exit_layers {[*layers]} do not rise")
        later = [len(ridge.bias) for ridge in self.ridges]
        if later != [*range(exits - 1, 0, -1)]:
            raise ValueError(f"ridges predict {later} of {exits} exits")
        if (value is None) != (self.language_model is None):
            raise ValueError("word_value and language_model go together")
        if value is not None and value.exits != exits:
            raise ValueError(f"word_value is for {value.exits} exits")
        if len(self.steps) not in (0, exits - 1):
            raise ValueError(f"steps are of {len(self.steps)} exits")
        for name, places in (pair for of in self.steps for pair in of.items()):
            if name not in self.evidence or [*places] != sorted({*places}):
                raise ValueError(f"steps of {name[:100]!r} do not increase")


def write_selector(path: str | Path, selector: LearnedSelector) -> None:
    """Write a selector whole or not at all.

    Arguments
    ---------
    path : str or Path
        Target, usually ``selector.json.gz``.
    selector : LearnedSelector
        What to write.

    Raises
    ------
    InputError
        If the target cannot be written.
    """
    model, value = selector.language_model, selector.word_value
    ridges = [
        _Ridge(
            ridge.names,
            ridge.mean_P.tolist(),
            ridge.scale_P.tolist(),
            ridge.weights_PQ.tolist(),
            ridge.bias_Q.tolist(),
            ridge.shares_P.tolist(),
        )
        for ridge in selector.ridges
    ]
    content = _SelectorFile(
        SCHEMA,
        selector.exit_layers,
        selector.evidence_names,
        selector.explain(),
        tuple(ridges),
        value
        and _WordValue(
            value.exits,
            value.mean_F.tolist(),
            value.scale_F.tolist(),
            tuple(
                dict(zip(_PARAMETERS, (each.tolist() for each in member)))
                for member in value.members
            ),
        ),
        model and ngram_content(model),
        selector.steps,
    )
    write_json(path, plain(content))


def read_selector(path: str | Path) -> LearnedSelector:
    """Read a selector and check it.

    Arguments
    ---------
    path : str or Path
        A file of :func:`write_selector`.

    Returns
    -------
    LearnedSelector

    Raises
    ------
    InputError
        With file and key, if the file is missing, cut or malformed.
    """
    row = read_record(path, _SelectorFile, _REMEDY)
    value, model = row.word_value, row.language_model
    return LearnedSelector(
        row.exit_layers,
        row.evidence,
        tuple(map(_ridge, row.ridges)),
        value
        and WordValue(
            value.exits,
            np.array(value.mean, np.float32),
            np.array(value.scale, np.float32),
            tuple(
                tuple(
                    np.array(member[name], np.float32) for name in _PARAMETERS
                )
                for member in value.members
            ),
        ),
        model and parse_ngram(Path(path), model),
        row.steps,
    )


def _ridge(row: _Ridge) -> Ridge:
    names, *numbers = astuple(row)
    mean_P, scale_P, weights, bias_Q, shares_P = (
        np.array(each, np.float64) for each in numbers
    )
    # without rows the columns are not known
    weights_PQ = weights.reshape(len(names), len(bias_Q))
    return Ridge(names, mean_P, scale_P, weights_PQ, bias_Q, shares_P)
