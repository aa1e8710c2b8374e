"""How plausible a transcript reads: a character n-gram model, and criteria.

An exit that has not understood an utterance writes words that nobody writes.
Counts of short character sequences in the training transcripts see that, and
cost a table look-up per character. They need no model output: a finished trace
can be given them, and a live system measures each exit's transcripts with the
same function.

The smoothing is Witten and Bell's (1991, IEEE Trans. Inf. Theory 37(4)) in
its interpolated form: with N(h) occurrences of a context h, after which T(h)
different characters were seen,

    p(c | h) = (N(h c) + T(h) p(c | h')) / (N(h) + T(h)),

where h' is h without its first character; the empty context interpolates
with a uniform distribution over the alphabet, the end and one unknown
character. Texts are lower-cased and their spaces normalised; a line break
stands for the begin (in contexts) and the end (as what is predicted).

The file, schema ``char-ngram/1``, is one JSON object, compressed with gzip:
``schema``, ``order``, ``grams`` and ``words``, the last two with their counts.
Probabilities are computed on reading. Equal models give equal bytes.

Axes: B utterances of a batch, N of a table.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.exits.criteria.registry import criterion
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.files import write_json
from speechbrain_ee.schema import Positive, Record, convert, read_record

logger = logging.getLogger(__name__)

SCHEMA = "char-ngram/1"
EDGE = "\n"  # begin and end: no normalised transcript holds one
MAX_ORDER = 10
# Nats per character of the least plausible transcript. A random string of
# letters has about -5; nothing is counted below, and the empty transcript,
# which says nothing, is put here.
FLOOR = -20.0
OF_TEXT = ("plausibility", "unseen_words")
_FOREIGN = 0.9
_MEMO = 200_000  # unseen sequences remembered: about 25 MB
_WORDS = 50_000  # words remembered: about 15 MB
_REMEDY = "build the model from the training transcripts again"
_Counts = Annotated[dict[str, Positive], Meta(min_length=1)]


# ---- The model -------------------------------------------------------------


class CharNgram:
    """Character n-gram model with Witten-Bell smoothing, and word counts.

    Build it with :meth:`train` or :func:`read_ngram`.
    """

    def __init__(
        self, order: int, grams: Mapping[str, int], words: Mapping[str, int]
    ):
        self.order = order
        self.grams = dict(grams)
        self.words = dict(words)
        self._log_p, self._log_rest, self._log_unknown = _smooth(self.grams)
        self._memo: dict[str, float] = {}
        self._scores: dict[str, tuple[str, float, float]] = {}

    @classmethod
    def train(cls, texts: Iterable[str], order: int = 5) -> "CharNgram":
        """Count the character sequences and words of some transcripts."""
        if not 1 <= order <= MAX_ORDER:
            raise InputError(
                f"character n-gram model: order={order} is not possible; "
                f"choose 1 to {MAX_ORDER} characters (5 is usual)."
            )
        grams: Counter[str] = Counter()
        words: Counter[str] = Counter()
        for text in texts:
            split = text.lower().split()
            words.update(split)
            # Only the longest sequence of each position is counted: shorter
            # ones are their suffixes, and summed over distinct sequences.
            grams.update(_sequences(" ".join(split), order))
        if not words:
            raise InputError(
                "character n-gram model: the transcripts hold no character; "
                "pass the training set's transcripts."
            )
        return cls(order, grams, words)

    def log_probs(self, text: str) -> NDArray[np.float64]:
        """Log-probability of every character and of the end."""
        log_p, backed_off = self._log_p, self._backed_off
        grams = _sequences(" ".join(text.lower().split()), self.order)
        values = map(log_p.get, grams)
        return np.array(
            [
                backed_off(gram) if value is None else value
                for gram, value in zip(grams, values)
            ]
        )

    def per_char(self, text: str) -> float:
        """Mean log-probability of a character, the end included."""
        log_probs = self.log_probs(text).tolist()
        return sum(log_probs) / len(log_probs)

    def unseen_words(self, text: str) -> float:
        """Share of the words that no training transcript holds."""
        split = text.lower().split()
        if not split:
            return 1.0
        known = self.words
        return sum(word not in known for word in split) / len(split)

    def word_scores(self, text: str) -> list[tuple[str, float, float]]:
        """Each word with how likely its spelling and how frequent it is."""
        words = text.lower().split()
        line = EDGE + " ".join(words) + EDGE
        remembered, reach = self._scores, self.order - 1
        if len(remembered) >= _WORDS:
            remembered.clear()
        scores, start = [], 1
        for word in words:
            stop = start + len(word) + 1
            # a word's characters depend on themselves and on a few before
            part = line[max(start - reach, 0) : stop]
            score = remembered.get(part)
            if score is None:
                score = remembered[part] = self._word_score(word, part)
            scores.append(score)
            start = stop
        return scores

    def _word_score(self, word: str, part: str) -> tuple[str, float, float]:
        """Of a word with what stands before it and one character after."""
        log_p, order, letters = self._log_p, self.order, len(word) + 1
        total = 0.0
        for stop in range(len(part) - letters + 1, len(part) + 1):
            gram = part[stop - order if stop > order else 0 : stop]
            value = log_p.get(gram)
            total += self._backed_off(gram) if value is None else value
        return word, total / letters, math.log1p(self.words.get(word, 0))

    def _backed_off(self, gram: str) -> float:
        """Log-probability of the last character after those before it."""
        value = self._log_p.get(gram)
        if value is None:
            value = self._memo.get(gram)
        if value is not None:
            return value
        if len(gram) == 1:
            return self._log_unknown
        # A context that was never seen says nothing: weight 1 to the rest.
        value = self._log_rest.get(gram[:-1], 0.0) + self._backed_off(gram[1:])
        if len(self._memo) >= _MEMO:
            self._memo.clear()
        self._memo[gram] = value
        return value


def _sequences(normal: str, order: int) -> list[str]:
    """The longest sequence that ends at each character and at the end."""
    line = EDGE + normal + EDGE
    head = min(order, len(line))
    first = [line[:stop] for stop in range(2, head + 1)] if order > 1 else []
    starts = range(1, len(line) - order + 1)
    return first + [line[i : i + order] for i in starts]


def _smooth(
    grams: Mapping[str, int],
) -> tuple[dict[str, float], dict[str, float], float]:
    """Log-probabilities of seen sequences; the weights of contexts."""
    counts: dict[str, int] = {}
    get = counts.get
    for gram, count in grams.items():
        for start in range(len(gram)):
            part = gram[start:]
            counts[part] = get(part, 0) + count
    seen: dict[str, int] = {}
    kinds: dict[str, int] = {}
    for gram, count in counts.items():
        context = gram[:-1]
        seen[context] = seen.get(context, 0) + count
        kinds[context] = kinds.get(context, 0) + 1
    # kinds[""] counts the alphabet and the end; the unknown comes on top
    uniform = 1.0 / (kinds[""] + 1)
    p: dict[str, float] = {"": uniform}
    for gram in sorted(counts, key=len):
        rest = p[gram[1:]] if len(gram) > 1 else uniform
        total, spread = seen[gram[:-1]], kinds[gram[:-1]]
        p[gram] = (counts[gram] + spread * rest) / (total + spread)
    del p[""]
    log = math.log
    log_rest = {h: log(kinds[h] / (n + kinds[h])) for h, n in seen.items()}
    log_p = {gram: log(value) for gram, value in p.items()}
    return log_p, log_rest, log_rest[""] + log(uniform)


# ---- Its file --------------------------------------------------------------


class _Content(Record):
    order: Annotated[int, Meta(ge=1, le=MAX_ORDER)]
    grams: _Counts
    words: _Counts

    def __post_init__(self) -> None:
        for gram in self.grams:
            # Shorter ones start with the begin, which alone predicts nothing.
            shorter = 2 <= len(gram) < self.order and gram[0] == EDGE
            if EDGE in gram[1:-1] or not (shorter or len(gram) == self.order):
                raise ValueError(
                    f"grams: {quoted(gram)} is no sequence of this order"
                )


class _File(_Content):
    schema: Literal["char-ngram/1"]


def write_ngram(path: str | Path, model: CharNgram) -> None:
    """Write a model whole or not at all."""
    write_json(path, {"schema": SCHEMA, **ngram_content(model)})


def read_ngram(path: str | Path) -> CharNgram:
    """Read a model and check it."""
    found = read_record(path, _File, _REMEDY)
    return CharNgram(found.order, found.grams, found.words)


def ngram_content(model: CharNgram) -> dict[str, Any]:
    """A model as plain values."""
    return {
        "order": model.order,
        "grams": dict(sorted(model.grams.items())),
        "words": dict(sorted(model.words.items())),
    }


def parse_ngram(path: Path, content: dict[str, Any]) -> CharNgram:
    """Check plain values and make a model of them."""
    found = convert(content, _Content, path, _REMEDY)
    return CharNgram(found.order, found.grams, found.words)


# ---- Evidence --------------------------------------------------------------


def _plausibility(model: CharNgram, text: str) -> float:
    return max(model.per_char(text), FLOOR) if text.strip() else FLOOR


_MEASURES = {
    "plausibility": _plausibility,
    "unseen_words": CharNgram.unseen_words,
}


def measure_texts(
    hyps: Sequence[str], model: CharNgram, names: Sequence[str] = OF_TEXT
) -> dict[str, NDArray[np.float64]]:
    """Measure some transcripts."""
    found = {}
    for name in names:
        measure = _MEASURES[name]
        # Exits agree more often than not: each distinct text is read once.
        known = {text: measure(model, text) for text in set(hyps)}
        found[name] = np.array([known[text] for text in hyps], dtype=float)
    return found


def add_plausibility(trace: Trace, model: CharNgram) -> Trace:
    """Give a trace the evidence ``plausibility`` and ``unseen_words``."""
    texts = trace.evidence.transcripts()
    flat = [text for row in texts for text in row]
    measured = measure_texts(flat, model)
    shape = trace.evidence.shape
    unseen_NE = measured["unseen_words"].reshape(shape)
    if len(unseen_NE) and unseen_NE[:, -1].mean() > _FOREIGN:
        logger.warning(
            "%s: %.0f %% of the words at the last exit are not in the "
            "transcripts that the character n-gram model was built from; "
            "plausibility says little here. Build it from transcripts of "
            "the same language.",
            trace.source,
            100 * unseen_NE[:, -1].mean(),
        )
    return trace.with_columns(
        {name: values.reshape(shape) for name, values in measured.items()}
    )


@criterion(
    "plausibility",
    needs=("plausibility",),
    higher_is_ready=True,
    formula="1/(C+1) sum_c ln p(c | characters before), end included",
    source="character n-gram, Witten and Bell 1991, IEEE Trans. IT 37(4)",
)
def plausibility(evidence: Evidence) -> NDArray[np.floating]:
    """Mean log-probability of the transcript's characters."""
    return evidence.column("plausibility")


@criterion(
    "unseen_words",
    needs=("unseen_words",),
    higher_is_ready=False,
    formula="words not in the training transcripts / words",
    source="this project",
)
def unseen_words(evidence: Evidence) -> NDArray[np.floating]:
    """Share of the transcript's words that training did not hold, negated."""
    return -evidence.column("unseen_words")
