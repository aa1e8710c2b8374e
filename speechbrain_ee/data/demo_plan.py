"""The plan of the demo corpus: who says what, before a sound is made.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np

from speechbrain_ee.data.demo_text import draw_sentences
from speechbrain_ee.data.demo_voices import Speaker, split_speakers

# Utterances at scale 1. The order is that of drawing: what the tests say is
# settled first, and training may not say it.
UTTERANCES: dict[str, int] = {
    "test-clean": 200,
    "test-other": 200,
    "dev-clean": 100,
    "train-clean": 3000,
}
_FEWEST = 4  # utterances of a split, however small the scale
_CHAPTERS = 2  # per speaker


@dataclass(frozen=True)
class Utterance:
    """One sentence to be spoken, with all that decides how it sounds."""

    split: str
    number: int
    chapter: str
    sentence: str
    speaker: Speaker
    seed: int

    @property
    def path(self) -> str:
        """The audio file, relative to the corpus."""
        speaker = self.speaker.number
        name = f"{speaker}-{self.chapter}-{self.number:04d}"
        return f"{self.split}/{speaker}/{self.chapter}/{name}.flac"


def plan_corpus(seed: int, scale: float) -> list[Utterance]:
    """Who says what, in the order of the files."""
    plan = []
    taken: set[str] = set()
    for split_index, (split, count) in enumerate(UTTERANCES.items()):
        count = max(_FEWEST, round(count * scale))
        rng = np.random.default_rng(
            np.random.SeedSequence([seed, 1, split_index])
        )
        speakers = split_speakers(split, seed)
        for index, sentence in enumerate(draw_sentences(count, rng, taken)):
            turn, which = divmod(index, len(speakers))
            turn, chapter = divmod(turn, _CHAPTERS)
            entropy = np.random.SeedSequence([seed, 2, split_index, index])
            plan.append(
                Utterance(
                    split=split,
                    number=turn,
                    chapter=str(1000 * (chapter + 1) + which),
                    sentence=sentence,
                    speaker=speakers[which],
                    seed=int(entropy.generate_state(1, np.uint64)[0]),
                )
            )
    return sorted(plan, key=lambda utterance: utterance.path)
