"""What the speakers of the demo corpus say: a small grammar of English.

It is in ``grammar.yaml``. A sentence form is a line with slots, ``the
{adjective} {animal} {went}``; a slot is filled by one of its phrases, which may
have slots themselves. The subjects are those of every day: house, market,
weather, travel, clock and calendar. Forms and phrases multiply to far more
sentences than a corpus can hold, so that a model has to hear the words and
cannot know the sentences.

Words that sound alike (*sea*, *see*) are left out as far as possible: a
recogniser without a language model could only guess among them.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from importlib import resources

import numpy as np
import yaml

_GRAMMAR = yaml.safe_load(
    resources.files(__package__).joinpath("grammar.yaml").read_text("utf-8")
)
FORMS: tuple[str, ...] = tuple(_GRAMMAR["forms"])
_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[a-z']+")
_PHRASES = {
    slot: tuple(" ".join(phrase.split()) for phrase in text.split(","))
    for slot, text in _GRAMMAR["slots"].items()
}


def vocabulary() -> frozenset[str]:
    """Every word that the grammar can say."""
    lines = list(FORMS) + [p for slot in _PHRASES.values() for p in slot]
    text = _SLOT.sub(" ", " ".join(lines))
    # "an" is not in the grammar: it is what "a" becomes before a vowel.
    return frozenset({"AN", *(word.upper() for word in _WORD.findall(text))})


class SentenceMaker:
    """Draws sentences in which all words have their turn.

    The forms, and the phrases of a slot, are dealt like cards: shuffled, and
    shuffled anew when all have been dealt. Rare words are therefore as
    frequent as the grammar allows.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._decks: dict[str, list[str]] = {}

    def draw(self) -> str:
        """Draw one sentence."""
        sentence = self._deal("", FORMS)
        while "{" in sentence:
            sentence = _SLOT.sub(
                lambda slot: self._deal(slot[1], _PHRASES[slot[1]]), sentence
            )
        return re.sub(r"\ba (?=[aeiou])", "an ", sentence)

    def _deal(self, name: str, cards: tuple[str, ...]) -> str:
        deck = self._decks.setdefault(name, [])
        if not deck:
            deck.extend(cards[i] for i in self._rng.permutation(len(cards)))
        return deck.pop()


def transcript(sentence: str) -> str:
    """The sentence as LibriSpeech would write it."""
    return " ".join(_WORD.findall(sentence.lower())).upper()


def draw_sentences(
    count: int, rng: np.random.Generator, taken: set[str]
) -> list[str]:
    """Draw sentences that nobody has said yet."""
    maker = SentenceMaker(rng)
    sentences = []
    while len(sentences) < count:
        sentence = maker.draw()
        if transcript(sentence) not in taken:
            taken.add(transcript(sentence))
            sentences.append(sentence)
    return sentences
