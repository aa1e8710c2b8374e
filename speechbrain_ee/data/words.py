"""Transcripts of other corpora in LibriSpeech's way of writing.

Upper case, words and single spaces, no punctuation but the apostrophe.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
import unicodedata

# Written apart in some corpora: it 's, don 't, i 'm.
_SUFFIX = re.compile(r"(?<=\w) '(?=(?:S|T|D|M|RE|VE|LL)\b)")
_APOSTROPHES = str.maketrans("\u2019\u2018\u02bc\u00b4`", "'''''")


def librispeech_words(text: str) -> str:
    """A transcript as LibriSpeech would have it.

    Arguments
    ---------
    text : str
        Words, perhaps with punctuation. Digits stay: nobody knows how they
        were spoken.

    Returns
    -------
    str
        Upper case, single spaces; apostrophes inside and around words stay,
        lone ones go.

    Example
    -------
    >>> librispeech_words("It 's the E.U. -- don 't worry, it\u2019s 27 states")
    "IT'S THE E U DON'T WORRY IT'S 27 STATES"
    """
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES).upper()
    kept = (c if c.isalnum() or c == "'" else " " for c in text)
    words = " ".join("".join(kept).split())
    words = _SUFFIX.sub("'", words)
    return " ".join(word for word in words.split() if word.strip("'"))
