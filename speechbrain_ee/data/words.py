"""How transcripts are written: the one place that says and does it.

Every transcript goes through :func:`normalised` when its manifest is read,
so that tokenizer, training, language model, criteria and scoring all see the
same text:

* curly apostrophes become the straight one;
* what is invisible goes: soft hyphens, zero-width spaces and joiners, byte
  order marks, marks of direction, variation selectors, control characters;
* Unicode's form NFKC: letters are composed, full-width and presentation
  forms become the usual ones;
* words are separated by single spaces.

Case stays, as do accents, punctuation and all that changes what is read.
SentencePiece's own rule (``nmt_nfkc``) leaves such text as it is. Nothing here
needs torch.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger(__name__)

# An accent that stands alone would become a space and an accent.
_APOSTROPHES = str.maketrans("\u2019\u2018\u02bc\u00b4\u1ffd", "'''''")
# Unicode's Default_Ignorable_Code_Point, and controls that are no white space
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\0-\b\x0e-\x1b\x7f-\x84\x86-\x9f]"
)
# SentencePiece writes a space as the first of these, and reads the second,
# which stands for bytes that were no text, as one.
_SPACES = str.maketrans("\u2581\ufffd", "  ")
# Written apart in some corpora: it 's, don 't, i 'm.
_SUFFIX = re.compile(r"(?<=\w) '(?=(?:S|T|D|M|RE|VE|LL)\b)")
_LETTERS_SHOWN = 12
_LONGEST_SHOWN = 60  # characters of an example


def normalised(text: str) -> str:
    """A transcript as tokenizer, training and scoring take it.

    Arguments
    ---------
    text : str
        A transcript as somebody wrote it.

    Returns
    -------
    str
        The same when read aloud; normalised again, it stays as it is.

    Example
    -------
    >>> normalised("cafe\u0301 \uff21\uff22\u00a0don\u2019t so\u00adfa")
    "caf\u00e9 AB don't sofa"
    """
    if not (text.isascii() and text.isprintable()):
        text = _INVISIBLE.sub("", text.translate(_APOSTROPHES))
        text = unicodedata.normalize("NFKC", text)
        # NFKC can bring an apostrophe forth: U+0149 is one and an n
        text = text.translate(_APOSTROPHES).translate(_SPACES)
    return " ".join(text.split())


def librispeech_words(text: str) -> str:
    """A transcript as LibriSpeech would have it.

    Example
    -------
    >>> librispeech_words("It 's the E.U. -- don 't worry, it\u2019s 27 states")
    "IT'S THE E U DON'T WORRY IT'S 27 STATES"
    """
    text = normalised(normalised(text).replace("`", "'").upper())
    kept = (
        # a mark belongs to the letter that it stands on
        c
        if c.isalnum() or c == "'" or unicodedata.category(c)[0] == "M"
        else " "
        for c in text
    )
    words = " ".join("".join(kept).split())
    words = _SUFFIX.sub("'", words)
    return " ".join(word for word in words.split() if word.strip("'"))


def decode(tokenizer: Any, tokens: Iterable[int]) -> str:
    """Token indices to text."""
    pieces = tokenizer.get_piece_size()
    text = tokenizer.decode_ids([t for t in tokens if t < pieces])
    return unicodedata.normalize("NFC", text)


def pieces_of(tokenizer: Any) -> tuple[str, ...]:
    """What each token writes, by index; control tokens write nothing."""
    return tuple(
        "" if tokenizer.is_control(i) else tokenizer.id_to_piece(i)
        for i in range(tokenizer.get_piece_size())
    )


class TranscriptCheck:
    """Transcripts on their way to a tokenizer, and what became of them.

    What the tokenizer gives back, ``decode(encode(transcript))``, is all that
    a model can recognise. Where that is written otherwise, the transcript is
    written so, too: training, scoring and language models see that one.
    What cannot be given back at all is told in one sentence, with counts.
    """

    def __init__(self, name: str, tokenizer: Any):
        self.name, self.tokenizer = name, tokenizer
        self.seen = self.changed = self.lacking = 0
        self.example: tuple[str, str] | None = None
        self.unknown: set[str] = set()
        self._words: dict[str, str | None] = {}

    def __call__(self, text: str) -> str:
        """Count a transcript; return it as the tokenizer gives it back.

        Words with letters that the tokenizer does not know stay as they are:
        nobody can recognise them, and they count as errors.
        """
        words = normalised(text).split()
        given_back = [self._given_back(word) for word in words]
        written = " ".join(
            word if back is None else back
            for word, back in zip(words, given_back)
            if back != ""
        )
        self.seen += 1
        self.lacking += None in given_back
        if written != text:
            self.changed += 1
            self.example = self.example or (text, written)
        return written

    def log(self) -> None:
        """Say what was normalised, and what the tokenizer does not know."""
        if self.example is not None:
            logger.warning(
                "%s: %d of %d transcripts were normalised (docs/corpora.md), "
                "the first from %s to %s.",
                self.name,
                self.changed,
                self.seen,
                *(ascii(text[:_LONGEST_SHOWN]) for text in self.example),
            )
        if self.unknown:
            logger.warning("%s: %s.", self.name, self.complaint())

    def complaint(self) -> str:
        """How many transcripts have unknown letters, and which these are."""
        letters = sorted(self.unknown)
        shown = " ".join(letters[:_LETTERS_SHOWN])
        if len(letters) > _LETTERS_SHOWN:
            shown += f" ... ({len(letters)} letters)"
        text = (
            f"the tokenizer does not know {shown}; {self.lacking} of "
            f"{self.seen} transcripts have such letters, and no word with "
            "them can be recognised"
        )
        swapped = sum(self._knows_other_case(c) for c in letters)
        if swapped:
            text += (
                f". It knows the other case of {swapped}: write all "
                "transcripts in the same case"
            )
        return text

    def _given_back(self, word: str) -> str | None:
        """What the tokenizer makes of a word; None if it lacks a letter."""
        if word not in self._words:
            tokens = self.tokenizer.encode_as_ids(word)
            back = " ".join(decode(self.tokenizer, tokens).split())
            if self.tokenizer.unk_id() in tokens:
                back = None
                self.unknown |= {c for c in word if not self._knows(c)}
            self._words[word] = back
        return self._words[word]

    def _knows(self, letter: str) -> bool:
        tokens = self.tokenizer.encode_as_ids(letter)
        return self.tokenizer.unk_id() not in tokens

    def _knows_other_case(self, letter: str) -> bool:
        other = letter.swapcase()
        return other != letter and self._knows(other)
