"""A learned selector as a file, schema ``exit-selector/1``.

One JSON object, compressed with gzip: the exits, the evidence read, the
weights, the character n-gram model, and ``explanation``, the share of the
predictions that each family of evidence makes (for readers; it is not read
back). Equal selectors give equal bytes.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any, Literal

from speechbrain_ee.exits.criteria.text import ngram_content, parse_ngram
from speechbrain_ee.exits.selector.selector import LearnedSelector, Ridge
from speechbrain_ee.exits.selector.value import WordValue
from speechbrain_ee.files import write_json
from speechbrain_ee.schema import Finite, Positive, Record, plain, read_record

SCHEMA = "exit-selector/1"
_REMEDY = "train the selector again from a development trace"


class _SelectorFile(Record):
    schema: Literal["exit-selector/1"]
    exit_layers: tuple[Positive, ...]
    evidence: tuple[str, ...]
    explanation: Any
    ridges: tuple[Ridge, ...]
    word_value: WordValue | None
    language_model: dict[str, Any] | None
    steps: tuple[dict[str, tuple[Finite, ...]], ...]

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
    model = selector.language_model
    content = _SelectorFile(
        SCHEMA,
        selector.exit_layers,
        selector.evidence_names,
        selector.explain(),
        selector.ridges,
        selector.word_value,
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
    model = row.language_model
    return LearnedSelector(
        row.exit_layers,
        row.evidence,
        row.ridges,
        row.word_value,
        model and parse_ngram(Path(path), model),
        row.steps,
    )
