"""The demo corpus: a small LibriSpeech that is made, not downloaded.

:func:`build_demo_corpus` lets synthetic speakers (``voices``) say the
sentences of a grammar (``text``), in rooms of different quality
(``acoustics``), and writes them in LibriSpeech's layout::

    DIR/<split>/<speaker>/<chapter>/<speaker>-<chapter>-NNNN.flac
    DIR/<split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt
    DIR/corpus.json

Every utterance has random numbers of its own, derived from the corpus seed
and its place, so the result does not depend on how many processes share the
work. ``corpus.json`` says from which version, seed and scale the corpus was
made, and lists every file with size and checksum, so that damage is noticed in
a fraction of a second. The corpus is built in a folder beside the final one
and moved there when it is complete: an interrupted build leaves nothing behind
that could be taken for a corpus.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import json
import logging
import multiprocessing
import os
import re
import zlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from tqdm import tqdm

from speechbrain_ee.data.demo.acoustics import CONDITIONS, record, trim_silence
from speechbrain_ee.data.demo.text import draw_sentences, transcript
from speechbrain_ee.data.demo.voices import (
    SAMPLE_RATE,
    Speaker,
    load_synthesiser,
    split_speakers,
    synthesise,
)
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import (
    check_ours,
    remove_abandoned,
    restore,
    whole_folder,
)
from speechbrain_ee.schema import Record, plain, read_record

logger = logging.getLogger(__name__)

_POOL_FROM = 200  # utterances; below, starting processes costs more
_WAY_OUT = (
    "choose a folder whose parent can be written to, on a disk with about "
    "200 MB to spare"
)


# ---- The plan: who says what -----------------------------------------------

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


def _planned(seed: int, scale: float) -> list[Utterance]:
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


# ---- Is there a corpus, whole and as wanted? -------------------------------

VERSION = 2  # raise it with every change that is heard or read
MARKER = "corpus.json"
FORMAT = "speechbrain-ee demo corpus"
# Speaker (LibriSpeech has none from 9000 on), chapter, file.
_FILE = r"(?P<s>9\d{3})/(?P<c>\d+)/(?P=s)-(?P=c)(-\d+\.flac|\.trans\.txt)"


class SplitSummary(Record):
    """What a split holds."""

    utterances: int
    hours: float
    speakers: int


class _Marker(Record):
    """What ``corpus.json`` holds; files with size and checksum."""

    format: Literal["speechbrain-ee demo corpus"]
    version: Literal[2]
    seed: int
    scale: float
    splits: dict[str, SplitSummary]
    speakers: dict[str, dict[str, Any]]
    files: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class DemoCorpus:
    """A complete demo corpus, its splits by name."""

    folder: Path
    splits: dict[str, SplitSummary]


def _find(folder: Path, seed: int, scale: float) -> DemoCorpus | str:
    """The corpus that is there, or why it has to be built."""
    if not folder.exists():
        return "it is not there"
    try:
        marker = read_record(folder / MARKER, _Marker, "it is made again")
    except InputError as error:
        return str(error)
    if (marker.seed, marker.scale) != (seed, scale):
        return f"it has seed {marker.seed} and scale {marker.scale}"
    for path, expected in marker.files.items():
        if ".." in path or os.path.isabs(path):
            return f"its {MARKER} names files elsewhere"
        try:
            found = _fingerprint(folder / path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            found = None
        if found != expected:
            return f"{path} is missing or damaged"
    return DemoCorpus(folder, marker.splits)


def _fingerprint(path: Path) -> tuple[int, int]:
    """Size and checksum of a file."""
    content = path.read_bytes()
    return len(content), zlib.crc32(content)


def refuse_foreign(folder: Path) -> None:
    """Make sure that a rebuild deletes nothing but a demo corpus."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder instead.")
    splits = "|".join(UTTERANCES)
    check_ours(folder, True, re.escape(MARKER), rf"({splits})/{_FILE}")


# ---- The corpus ------------------------------------------------------------


def build_demo_corpus(
    folder: str | Path,
    seed: int = 1234,
    scale: float = 1.0,
    progress: bool = True,
) -> DemoCorpus:
    """Build the demo corpus, or verify the one that is there.

    A complete corpus of the same version, seed and scale is left as it is;
    one that is damaged or differs is replaced.

    Arguments
    ---------
    folder : str or Path
        Where the corpus shall lie.
    seed : int
        The same seed gives the same corpus.
    scale : float
        Factor on the number of utterances; 1 is 1.7 hours of speech.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    DemoCorpus
        The folder and what is in it.

    Raises
    ------
    InputError
        Where the folder holds something else or cannot be written, where
        seed or scale are out of range, or without espeak-ng.
    """
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; pass 0 or more.")
    if not 0 < scale <= 100:
        raise InputError(
            f"scale: {scale} is not usable; pass a factor above 0 and up to "
            "100, 1 for the full demo corpus."
        )
    folder = Path(folder).expanduser().resolve()
    restore(folder)
    try:
        found = _find(folder, seed, scale)
        if isinstance(found, str):
            refuse_foreign(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror or error}); {_WAY_OUT}."
        ) from error
    if isinstance(found, DemoCorpus):
        remove_abandoned(folder)
        logger.info("The demo corpus in %s is complete", folder)
        return found
    load_synthesiser()
    logger.info("Building the demo corpus in %s: %s", folder, found)
    with whole_folder(folder, refuse_foreign, _WAY_OUT) as new:
        marker = _write_corpus(new, int(seed), float(scale), progress)
    return DemoCorpus(folder, marker.splits)


def demo_command(folder: str, seed: int, scale: float) -> str:
    """What ``python -m speechbrain_ee demo-corpus`` does."""
    corpus = build_demo_corpus(folder, seed, scale)
    lines = [
        f"{name:12s} {split.utterances:5d} utterances "
        f"{split.hours:6.2f} h {split.speakers:4d} speakers"
        for name, split in corpus.splits.items()
    ]
    return "\n".join([*lines, f"demo corpus: {corpus.folder}"])


def _write_corpus(
    corpus: Path, seed: int, scale: float, progress: bool
) -> _Marker:
    """Write audio, transcripts and, last of all, the marker."""
    plan = _planned(seed, scale)
    lines: dict[str, list[str]] = {}
    for utterance in plan:
        audio = Path(utterance.path)
        (corpus / audio.parent).mkdir(parents=True, exist_ok=True)
        name = f"{utterance.speaker.number}-{utterance.chapter}.trans.txt"
        lines.setdefault(str(audio.parent / name), []).append(
            f"{audio.stem} {transcript(utterance.sentence)}\n"
        )
    for path, content in lines.items():
        (corpus / path).write_bytes("".join(content).encode())

    rendered = _render_all(corpus, plan)
    bar = partial(tqdm, desc="demo corpus", disable=not progress)
    seconds = dict(bar(rendered, total=len(plan)))
    marker = _Marker(
        FORMAT,
        VERSION,
        seed,
        scale,
        {split: _summary(split, plan, seconds) for split in CONDITIONS},
        {
            str(u.speaker.number): {"split": u.split} | asdict(u.speaker)
            for u in plan
        },
        {
            path: _fingerprint(corpus / path)
            for path in sorted([*lines, *seconds])
        },
    )
    text = json.dumps(plain(marker), indent=1) + "\n"
    (corpus / MARKER).write_text(text, encoding="utf-8")
    return marker


def _render_all(
    corpus: Path, plan: list[Utterance]
) -> Iterable[tuple[str, float]]:
    """Render every utterance, on all cores where that pays."""
    workers = os.cpu_count() or 1
    rest = {utterance.path: utterance for utterance in plan}
    if workers > 1 and len(plan) >= _POOL_FROM:
        # "spawn": a fork of a process with threads, such as torch's, may hang
        pool = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn")
        )
        jobs = [(corpus, utterance) for utterance in plan]
        try:
            for path, duration_s in pool.map(_render, jobs, chunksize=16):
                del rest[path]
                yield path, duration_s
        except BrokenProcessPool:
            # A script without `if __name__ == "__main__"` cannot be spawned.
            logger.warning("No worker processes here: going on with one.")
        finally:
            pool.shutdown(cancel_futures=True)
    for utterance in rest.values():
        yield _render((corpus, utterance))


def _render(job: tuple[Path, Utterance]) -> tuple[str, float]:
    """Speak, record and write one utterance; its path and seconds."""
    corpus, utterance = job
    rng = np.random.default_rng(utterance.seed)
    speech = trim_silence(
        synthesise(utterance.sentence, utterance.speaker, rng)
    )
    sound = record(speech, CONDITIONS[utterance.split], rng)
    flac = io.BytesIO()  # a full disk then raises OSError, not soundfile's
    soundfile.write(
        flac,
        np.round(sound * 32767).astype(np.int16),
        SAMPLE_RATE,
        format="FLAC",
        subtype="PCM_16",
    )
    (corpus / utterance.path).write_bytes(flac.getvalue())
    return utterance.path, len(sound) / SAMPLE_RATE


def _summary(
    split: str, plan: list[Utterance], seconds: dict[str, float]
) -> SplitSummary:
    """Utterances, hours and speakers of a split."""
    mine = [utterance for utterance in plan if utterance.split == split]
    hours = sum(seconds[utterance.path] for utterance in mine) / 3600
    speakers = {utterance.speaker.number for utterance in mine}
    return SplitSummary(len(mine), round(hours, 4), len(speakers))
