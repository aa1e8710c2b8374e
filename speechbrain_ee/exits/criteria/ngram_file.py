"""A character n-gram model as a file, schema ``char-ngram/1``.

One JSON object, compressed with gzip: ``schema``, ``order``, ``grams`` and
``words``, the last two with their counts. Probabilities are computed on
reading. Equal models give equal bytes.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any, NoReturn

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.exits.criteria.ngram import EDGE, MAX_ORDER, CharNgram
from speechbrain_ee.files import check_keys, read_json, write_json

SCHEMA = "char-ngram/1"
_KEYS = ("order", "grams", "words")
_REMEDY = "build the model from the training transcripts again"


def write_ngram(path: str | Path, model: CharNgram) -> None:
    """Write a model whole or not at all.

    Arguments
    ---------
    path : str or Path
        Target, usually ``….json.gz``; compressed whatever its name.
    model : CharNgram
        What to write.

    Raises
    ------
    InputError
        If the target cannot be written.

    Example
    -------
    >>> target = Path(getfixture("tmp_path")) / "spelling.json.gz"
    >>> write_ngram(target, CharNgram.train(["the cat"], order=3))
    >>> read_ngram(target).words
    {'cat': 1, 'the': 1}
    """
    write_json(path, {"schema": SCHEMA, **ngram_content(model)})


def read_ngram(path: str | Path) -> CharNgram:
    """Read a model and check it.

    Arguments
    ---------
    path : str or Path
        A file of :func:`write_ngram`.

    Returns
    -------
    CharNgram

    Raises
    ------
    InputError
        With file and key, if the file is missing, cut or malformed.
    """
    path = Path(path)
    content = read_json(path, _REMEDY)
    check_keys(content, SCHEMA, _KEYS, path, _REMEDY)
    return parse_ngram(path, content)


def ngram_content(model: CharNgram) -> dict[str, Any]:
    """A model as plain values.

    Arguments
    ---------
    model : CharNgram
        The model.

    Returns
    -------
    dict
        ``order``, ``grams`` and ``words``.
    """
    return {
        "order": model.order,
        "grams": dict(sorted(model.grams.items())),
        "words": dict(sorted(model.words.items())),
    }


def parse_ngram(path: Path, content: dict[str, Any]) -> CharNgram:
    """Check plain values and make a model of them.

    Arguments
    ---------
    path : Path
        Where they were read, for messages.
    content : dict
        ``order``, ``grams`` and ``words``.

    Returns
    -------
    CharNgram

    Raises
    ------
    InputError
        With file and key, if a value is not possible.
    """
    order = content.get("order")
    if type(order) is not int or not 1 <= order <= MAX_ORDER:
        _fail(
            path,
            "order",
            f"is {quoted(order)}, not a number from 1 to {MAX_ORDER}",
        )
    grams = _counts(path, "grams", content.get("grams"))
    for gram in grams:
        if not _possible(gram, order):
            _fail(
                path,
                "grams",
                f"holds {quoted(gram)}, no sequence of this order",
            )
    words = _counts(path, "words", content.get("words"))
    return CharNgram(order, grams, words)


def _counts(path: Path, key: str, counts: Any) -> dict[str, int]:
    if not isinstance(counts, dict) or not counts:
        _fail(path, key, "is not an object of counts")
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            _fail(path, key, f"gives {quoted(name)} the count {quoted(count)}")
    return counts


def _possible(gram: str, order: int) -> bool:
    """Whether training could have counted it."""
    if EDGE in gram[1:-1]:
        return False
    if len(gram) == order:
        return True
    # Shorter ones start with the begin, which alone predicts nothing.
    return 2 <= len(gram) < order and gram[0] == EDGE


def _fail(path: Path, key: str, what: str) -> NoReturn:
    raise InputError(f"{path}: {key} {what}; {_REMEDY}.")
