"""CSV manifests for TED-LIUM 3.

The release as it is unpacked: talks as NIST sphere files of 16 kHz in
``legacy/{train,dev,test}/sph``, their segments in ``stm`` beside it. Without
``legacy/train``, the training talks are those of ``data/{sph,stm}`` that are
not among ``legacy``'s dev and test talks. Segments are not cut out: a
manifest names the part of the talk (see :mod:`speechbrain_ee.data.clips`).

A line of an STM file is ``talk channel speaker start end <labels> words``,
times in seconds. Segments that are not to be scored are left out; unknown
words, noises in braces and numbers of pronunciations are removed from the
transcripts, which are written as LibriSpeech's.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

from speechbrain_ee.data.audio_check import EMPTY_AUDIO, UNREADABLE_AUDIO
from speechbrain_ee.data.clips import SAMPLES, Clip
from speechbrain_ee.data.layout import (
    DUPLICATE_ID,
    EMPTY_TRANSCRIPT,
    MISSING_AUDIO,
    Skipped,
    SplitText,
    Utterance,
)
from speechbrain_ee.data.preparation import FixedSplits
from speechbrain_ee.data.words import librispeech_words
from speechbrain_ee.errors import InputError

SPLITS = ("train", "dev", "test")
LAYOUT = "<data_folder>/legacy/{train,dev,test}/{sph,stm}/<talk>.{sph,stm}"
IGNORED = "ignore_time_segment_in_scoring"
NOT_SCORED = "not to be scored"
AUDIO_SUFFIXES = (".sph", ".wav", ".flac")
# Segments that end this much behind the talk are cut to its end, in seconds.
ROUNDING_S = 0.05
LINE = "<talk> <channel> <speaker> <start> <end> [<labels>] <words>"

_NO_WORD = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^\]]*\]|\(\d+\)")


@dataclass(frozen=True)
class TalkFiles:
    """What lies in a split: transcripts, and audio by name of the talk."""

    split: str
    transcripts: tuple[Path, ...]
    audio: dict[str, Path]


@dataclass(frozen=True)
class StmLine:
    """A segment of a talk, times in seconds."""

    talk: str
    speaker: str
    start_s: float
    stop_s: float
    text: str

    @property
    def name(self) -> str:
        """Id of the utterance: talk and times in hundredths of a second."""
        times = (round(100 * s) for s in (self.start_s, self.stop_s))
        return "-".join([self.talk, *(f"{time:07d}" for time in times)])


def find_talks(data_folder: Path, split: str) -> TalkFiles:
    """The files of a split."""
    release = _release(data_folder)
    folder = release / split
    if not folder.is_dir() and split == "train":
        folder = release.parent / "data"
    if not (folder / "stm").is_dir():
        raise InputError(
            f"data_folder: {data_folder} has no split {split!r} of TED-LIUM "
            f"3: {release / split / 'stm'} is no folder; the layout is "
            f"{LAYOUT}."
        )
    left_out = set()
    if folder.name == "data":
        held_out = [release.glob(f"{name}/stm/*.stm") for name in SPLITS[1:]]
        left_out = {path.stem for paths in held_out for path in paths}
    transcripts = sorted((folder / "stm").glob("*.stm"))
    transcripts = [path for path in transcripts if path.stem not in left_out]
    if not transcripts:
        raise InputError(
            f"data_folder: {folder / 'stm'} holds no *.stm file; the layout "
            f"is {LAYOUT}."
        )
    audio = {
        path.stem: path
        for path in sorted((folder / "sph").glob("*"))
        if path.suffix in AUDIO_SUFFIXES
    }
    return TalkFiles(split, tuple(transcripts), audio)


def _release(data_folder: Path) -> Path:
    """The folder that holds the splits."""
    places = [data_folder, data_folder / "legacy"]
    places += sorted(data_folder.glob("TEDLIUM*/legacy"))
    for place in places:
        if any((place / split / "stm").is_dir() for split in SPLITS):
            return place
    return data_folder / "legacy"


def talks_state(files: TalkFiles) -> list[int]:
    """Numbers that differ when the corpus has changed."""
    paths = (*files.transcripts, *files.audio.values())
    newest = max(path.stat().st_mtime_ns for path in paths)
    return [len(files.audio), len(files.transcripts), newest]


def read_stm(path: Path) -> Iterator[StmLine]:
    """The segments of a talk."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"data_folder: {path} cannot be read as UTF-8 text ({error}); "
            "convert or replace it."
        ) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        yield _parse(line, f"{path}:{number}")


def _parse(line: str, where: str) -> StmLine:
    parts = line.split(None, 5)
    try:
        talk, _, speaker, start, stop = parts[:5]
        start_s, stop_s = float(start), float(stop)
        # `not <=` holds for what is no number, too
        if not 0 <= start_s <= stop_s < float("inf"):
            raise ValueError(f"from {start} to {stop} s")
    except ValueError as error:
        raise InputError(
            f"data_folder: {where}: is no line of an STM file ({error}); it "
            f"must be {LINE}. Mend it, or put ';;' before it."
        ) from error
    return StmLine(
        talk, speaker, start_s, stop_s, parts[5] if parts[5:] else ""
    )


def stm_words(text: str) -> str:
    """A transcript without labels, unknown words and noises."""
    return librispeech_words(_NO_WORD.sub(" ", text))


def read_talks(files: TalkFiles) -> SplitText:
    """The utterances of a split."""
    utterances: dict[str, Utterance] = {}
    skipped = []
    for transcript in files.transcripts:
        headers: dict[str, tuple[int, int] | None] = {}
        for line in read_stm(transcript):
            if line.talk not in headers:
                headers[line.talk] = _header(files.audio.get(line.talk))
            found = _utterance(line, files.audio, headers[line.talk])
            if isinstance(found, Utterance) and line.name in utterances:
                found = DUPLICATE_ID
            if isinstance(found, str):
                path = files.audio.get(line.talk, transcript)
                skipped.append(Skipped(line.name, str(path), found))
            else:
                utterances[line.name] = found
    return SplitText(
        tuple(utterances[name] for name in sorted(utterances)),
        tuple(sorted(skipped, key=lambda one: (one.utterance_id, one.path))),
    )


def _header(path: Path | None) -> tuple[int, int] | None:
    """Samples per second, and samples; None if it cannot be read."""
    try:
        info = soundfile.info(str(path)) if path else None
    except (OSError, soundfile.SoundFileError):
        return None
    return (info.samplerate, info.frames) if info else None


def _utterance(
    line: StmLine, audio: dict[str, Path], header: tuple[int, int] | None
) -> Utterance | str:
    """The utterance, or why it cannot be used."""
    if IGNORED in line.text:
        return NOT_SCORED
    words = stm_words(line.text)
    if not words:
        return EMPTY_TRANSCRIPT
    if line.start_s == line.stop_s:
        return EMPTY_AUDIO
    if line.talk not in audio:
        return MISSING_AUDIO
    if header is None:
        return UNREADABLE_AUDIO
    rate, frames = header
    start, stop = round(line.start_s * rate), round(line.stop_s * rate)
    if start < frames < stop <= frames + ROUNDING_S * rate:
        stop = frames
    clip = Clip(str(audio[line.talk]), SAMPLES, start, stop - start)
    return Utterance(line.name, line.speaker, str(clip), words)


TEDLIUM3 = FixedSplits(
    "TED-LIUM 3", SPLITS, find_talks, talks_state, read_talks
)
prepare_tedlium3 = TEDLIUM3.prepare
