"""A learned selector as a file, schema ``exit-selector/1``.

One JSON object, compressed with gzip: the exits, the evidence read, the
weights, the character n-gram model, and ``explanation``, the share of the
predictions that each family of evidence makes (for readers; it is not read
back). Equal selectors give equal bytes.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.json_file import read_json, write_json
from speechbrain_ee.exits.ngram_file import ngram_content, parse_ngram
from speechbrain_ee.exits.ridge import Ridge
from speechbrain_ee.exits.selector import LearnedSelector
from speechbrain_ee.exits.word_value import WordValue

SCHEMA = "exit-selector/1"
_KEYS = (
    "exit_layers",
    "evidence",
    "explanation",
    "ridges",
    "word_value",
    "language_model",
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
    content = read_json(path, SCHEMA, _KEYS, _REMEDY)
    model, value = content["language_model"], content["word_value"]
    try:
        selector = LearnedSelector(
            tuple(int(layer) for layer in content["exit_layers"]),
            tuple(str(name) for name in content["evidence"]),
            tuple(Ridge.from_dict(row) for row in content["ridges"]),
            None if value is None else WordValue.from_dict(value),
            None if model is None else parse_ngram(path, model),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: the weights are not whole ({error}); {_REMEDY}."
        ) from None
    if len(selector.ridges) != len(selector.exit_layers) - 1:
        raise InputError(
            f"{path}: ridges holds {len(selector.ridges)} regressions for "
            f"{len(selector.exit_layers)} exits; {_REMEDY}."
        )
    return selector
