"""A learned selector as a file, schema ``exit-selector/1``.

One JSON object, compressed with gzip: the exits, the evidence read, the
weights, the character n-gram model, and ``explanation``, the share of the
predictions that each family of evidence makes (for readers; it is not read
back). Equal selectors give equal bytes.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError, one_line, quoted
from speechbrain_ee.exits.criteria.text import ngram_content, parse_ngram
from speechbrain_ee.exits.selector.features import FAMILIES
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.ridge import Ridge
from speechbrain_ee.exits.selector.steps import Steps
from speechbrain_ee.exits.selector.word_table import WORD_FEATURES
from speechbrain_ee.exits.selector.word_value import WordValue
from speechbrain_ee.files import check_keys, read_json, write_json

SCHEMA = "exit-selector/1"
_KEYS = (
    "exit_layers",
    "evidence",
    "explanation",
    "ridges",
    "word_value",
    "language_model",
    "steps",
)
_REMEDY = "train the selector again from a development trace"


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
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "exit_layers": list(selector.exit_layers),
        "evidence": list(selector.evidence_names),
        "explanation": selector.explain(),
        "ridges": [ridge.to_dict() for ridge in selector.ridges],
        "word_value": None if value is None else value.to_dict(),
        "language_model": None if model is None else ngram_content(model),
        "steps": [dict(places) for places in selector.steps],
    }
    write_json(path, content)


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
    path = Path(path)
    content = read_json(path, _REMEDY)
    check_keys(content, SCHEMA, _KEYS, path, _REMEDY)
    model, value = content["language_model"], content["word_value"]
    try:
        layers = _exit_layers(content["exit_layers"])
        names = _strings(content["evidence"], "evidence")
        ridges = [_ridge(row) for row in content["ridges"]]
        _check_ridges(ridges, len(layers))
        if (value is None) != (model is None):
            raise ValueError("word_value and language_model go together")
        value = None if value is None else _word_value(value, len(layers))
        return LearnedSelector(
            layers,
            names,
            tuple(ridges),
            value,
            None if model is None else parse_ngram(path, model),
            _steps(content["steps"], names, len(ridges)),
        )
    except InputError:
        raise
    except KeyError as error:
        problem = f"{error} is missing"
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        problem = one_line(error)
    raise InputError(
        f"{path}: the weights are not whole ({problem}); {_REMEDY}."
    )


def _exit_layers(found: Any) -> tuple[int, ...]:
    numbers = isinstance(found, list) and all(type(n) is int for n in found)
    if not numbers or not found or found != sorted({*found}) or found[0] < 1:
        raise ValueError(
            f"exit_layers is {quoted(found)}, not increasing numbers"
        )
    return tuple(found)


def _strings(found: Any, key: str) -> tuple[str, ...]:
    if not isinstance(found, list) or {*map(type, found)} - {str}:
        raise ValueError(f"{key} is {quoted(found)}, not a list of names")
    return tuple(found)


def _ridge(row: dict[str, Any]) -> Ridge:
    names = _strings(row["names"], "names")
    for name in names:
        if not name.startswith(FAMILIES):
            raise ValueError(f"no feature is called {quoted(name)}")
    return Ridge.from_dict(row)


def _steps(found: Any, names: Sequence[str], exits: int) -> tuple[Steps, ...]:
    if not isinstance(found, list) or len(found) not in (0, exits):
        raise ValueError(f"steps is not a list of {exits} objects")
    for places in found:
        for name, values in places.items():
            if name not in names or values != sorted({*values}):
                raise ValueError(f"steps of {quoted(name)} do not increase")
            _check_array("steps", np.array(values, float), (len(values),))
    return tuple(
        {name: tuple(values) for name, values in places.items()}
        for places in found
    )


def _check_ridges(ridges: list[Ridge], exits: int) -> None:
    if len(ridges) != exits - 1:
        raise ValueError(f"ridges holds {len(ridges)} for {exits} exits")
    for exit_, ridge in enumerate(ridges):
        size, later = len(ridge.names), exits - 1 - exit_
        _check_array("mean", ridge.mean_P, (size,))
        _check_array("scale", ridge.scale_P, (size,), positive=True)
        _check_array("weights", ridge.weights_PQ, (size, later))
        _check_array("bias", ridge.bias_Q, (later,))
        _check_array("shares", ridge.shares_P, (size,))


def _word_value(row: dict[str, Any], exits: int) -> WordValue:
    if row["exits"] != exits:
        raise ValueError(f"word_value is for {quoted(row['exits'])} exits")
    value = WordValue.from_dict(row)
    shape = (len(WORD_FEATURES),)
    _check_array("mean", value.mean_F, shape)
    _check_array("scale", value.scale_F, shape, positive=True)
    for member in value.members:
        for name, weight in member.state_dict().items():
            _check_array(name, weight.numpy(), weight.shape)
    return value


def _check_array(
    key: str,
    found: NDArray[np.floating],
    shape: Sequence[int],
    positive: bool = False,
) -> None:
    if found.shape != tuple(shape):
        raise ValueError(f"{key} has the shape {found.shape}, not {shape}")
    if not np.isfinite(found).all() or (positive and not (found > 0).all()):
        raise ValueError(f"{key} holds a number that is not possible")
