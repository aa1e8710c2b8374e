"""A character n-gram model of transcripts: how likely is this spelling?

An exit that has not understood an utterance writes words that nobody writes.
Counts of short character sequences in the training transcripts see that, and
cost a table look-up per character.

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

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.files import check_keys, read_json, write_json

SCHEMA = "char-ngram/1"
EDGE = "\n"  # begin and end: no normalised transcript holds one
MAX_ORDER = 10
_MEMO = 200_000  # unseen sequences remembered: about 25 MB
_WORDS = 50_000  # words remembered: about 15 MB
_KEYS = ("order", "grams", "words")
_REMEDY = "build the model from the training transcripts again"


class CharNgram:
    """Character n-gram model with Witten-Bell smoothing, and word counts.

    Build it with :meth:`train` or :func:`read_ngram`.

    Arguments
    ---------
    order : int
        Characters of the longest sequence, the predicted one included.
    grams : mapping of str to int
        How often each position's longest sequence occurs: ``order``
        characters, or fewer from the begin of a text.
    words : mapping of str to int
        How often each word occurs.

    Example
    -------
    >>> model = CharNgram.train(["the cat sat", "the cat ate"], order=3)
    >>> model.per_char("the cat") > model.per_char("txe cxt")
    True
    >>> model.unseen_words("the cta")
    0.5
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

    @property
    def alphabet(self) -> tuple[str, ...]:
        """Characters of the training transcripts, without end and unknown."""
        seen = {gram[-1] for gram in self.grams}
        return tuple(sorted(seen - {EDGE}))

    def log_prob(self, context: str, character: str) -> float:
        """Log-probability of one character."""
        reach = self.order - 1
        return self._backed_off((context[-reach:] if reach else "") + character)

    def log_probs(self, text: str) -> NDArray[np.float64]:
        """Log-probability of every character and of the end."""
        return np.array(self._log_probs(_normal(text)))

    def per_char(self, text: str) -> float:
        """Mean log-probability of a character, the end included."""
        log_probs = self._log_probs(_normal(text))
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

    def _log_probs(self, normal: str) -> list[float]:
        log_p, backed_off = self._log_p, self._backed_off
        grams = _sequences(normal, self.order)
        return [
            backed_off(gram) if value is None else value
            for gram, value in zip(grams, map(log_p.get, grams))
        ]

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


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


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
    """Log-probabilities of seen sequences; the weights of contexts.

    Returns
    -------
    dict of str to float
        Of every seen sequence of any length, interpolated.
    dict of str to float
        Of every context, the log of the share T / (N + T) that it leaves to
        the shorter context.
    float
        Log-probability of the unknown character without a context.
    """
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


def write_ngram(path: str | Path, model: CharNgram) -> None:
    """Write a model whole or not at all.

    Example
    -------
    >>> target = Path(getfixture("tmp_path")) / "spelling.json.gz"
    >>> write_ngram(target, CharNgram.train(["the cat"], order=3))
    >>> read_ngram(target).words
    {'cat': 1, 'the': 1}
    """
    write_json(path, {"schema": SCHEMA, **ngram_content(model)})


def read_ngram(path: str | Path) -> CharNgram:
    """Read a model and check it."""
    path = Path(path)
    content = read_json(path, _REMEDY)
    check_keys(content, SCHEMA, _KEYS, path, _REMEDY)
    return parse_ngram(path, content)


def ngram_content(model: CharNgram) -> dict[str, Any]:
    """A model as plain values."""
    return {
        "order": model.order,
        "grams": dict(sorted(model.grams.items())),
        "words": dict(sorted(model.words.items())),
    }


def parse_ngram(path: Path, content: dict[str, Any]) -> CharNgram:
    """Check plain values and make a model of them."""
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
