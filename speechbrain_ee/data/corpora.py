"""The corpora that are known: where their files are, and who says what.

LibriSpeech's layout
    A split is a folder ``<data_folder>/<split>/<speaker>/<chapter>/`` with
    audio in ``<speaker>-<chapter>-NNNN.flac`` (or ``.wav``, ``.ogg``,
    ``.opus``) and one ``<speaker>-<chapter>.trans.txt`` per chapter, whose
    lines are an utterance id and its words.
TED-LIUM 3
    Talks as NIST sphere files of 16 kHz in ``legacy/{train,dev,test}/sph``,
    their segments in ``stm`` beside it. Without ``legacy/train``, the training
    talks are those of ``data/{sph,stm}`` that are not among ``legacy``'s dev
    and test talks. Segments are not cut out: a manifest names the part of the
    talk (see :mod:`speechbrain_ee.data.manifests`). A line of an STM file is
    ``talk channel speaker start end <labels> words``, times in seconds.
    Segments that are not to be scored are left out; unknown words, noises in
    braces and numbers of pronunciations are removed from the transcripts,
    which are written as LibriSpeech's.
VoxPopuli, English, transcribed
    As the corpus's own tools make it: one recording per utterance in
    ``transcribed_data/en/<year>/<id>.ogg`` (the year is the beginning of the
    id), and ``transcribed_data/en/asr_{train,dev,test}.tsv`` with one line per
    utterance, of which the columns ``id``, ``normalized_text`` and
    ``speaker_id`` are read. The transcripts are written as LibriSpeech's;
    digits stay. A ``speaker_id`` of ``None`` is one that nobody knows.

What cannot be used is returned with its reason. The recipe folder of
LibriSpeech links to this file as ``librispeech_prepare.py``.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import yaml

from speechbrain_ee.data.manifests import (
    EMPTY_AUDIO,
    SAMPLES,
    UNREADABLE_AUDIO,
    Clip,
)
from speechbrain_ee.data.preparation import (
    DUPLICATE_ID,
    EMPTY_TRANSCRIPT,
    MISSING_AUDIO,
    Corpus,
    Utterance,
    is_elsewhere,
    split_folder,
)
from speechbrain_ee.data.words import librispeech_words, normalised
from speechbrain_ee.errors import InputError


def _lines(path: str | Path) -> list[str]:
    """The lines of a transcript."""
    try:
        # Editors on Windows put a byte order mark before the first id.
        return Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"data_folder: {path} cannot be read as UTF-8 text ({error}); "
            "convert or replace it."
        ) from error


# ---- LibriSpeech's layout --------------------------------------------------

AUDIO_SUFFIXES = (".flac", ".ogg", ".opus", ".wav")
TRANSCRIPT_SUFFIX = ".trans.txt"
LAYOUT = (
    "<data_folder>/<split>/<speaker>/<chapter>/ with "
    "<speaker>-<chapter>-NNNN.flac (or .wav, .ogg, .opus) and "
    "<speaker>-<chapter>.trans.txt"
)
MISSING_TRANSCRIPT = "missing transcript"


@dataclass(frozen=True)
class SplitFiles:
    """What lies in a split's folder, sorted by path."""

    audio: list[str]
    transcripts: list[str]


def list_split(top: Path) -> tuple[SplitFiles, list[int]]:
    """The files of ``<data_folder>/<split>``, and what shows a change.

    That is the newest change of any folder or transcript, beside counts.
    """
    audio, transcripts, newest_mtime_ns = [], [], 0
    for entry in _walk(top):
        name = entry.name.lower()
        if name.endswith(TRANSCRIPT_SUFFIX):
            transcripts.append(entry.path)
        elif name.endswith(AUDIO_SUFFIXES):
            audio.append(entry.path)
            continue
        # Not of audio: one more stat for each of 281,000 files.
        newest_mtime_ns = max(newest_mtime_ns, entry.stat().st_mtime_ns)
    _check_depth(top, transcripts)
    state = [len(audio), len(transcripts), newest_mtime_ns]
    return SplitFiles(sorted(audio), sorted(transcripts)), state


def _walk(top: Path) -> Iterator[os.DirEntry]:
    """Every folder and every known file below ``top``; hidden ones are left.

    Unlike ``os.walk``, a folder that cannot be read is an error, because
    its utterances would go missing without a word.
    """
    folders, seen = [str(top)], set()
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            # Links are followed, but never in a circle.
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = [entry for entry in scan if entry.name[0] != "."]
        except OSError as error:
            raise InputError(
                f"data_folder: {folder} cannot be read ({error.strerror}); "
                "give yourself permission to read it, or name other splits."
            ) from error
        known = (*AUDIO_SUFFIXES, TRANSCRIPT_SUFFIX)
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.path)
                yield entry
            elif entry.name.lower().endswith(known) and entry.is_file():
                yield entry


def _check_depth(top: Path, transcripts: list[str]) -> None:
    """Raise InputError unless every transcript is two folders down."""
    if not transcripts:
        raise InputError(
            f"data_folder: {top} holds no *{TRANSCRIPT_SUFFIX} file; the "
            f"layout must be {LAYOUT}."
        )
    for path in map(Path, transcripts):
        if len(path.relative_to(top).parts) != 3:
            split = path.parents[min(2, len(path.parents) - 1)]
            raise InputError(
                f"data_folder: {path} is not at the depth of the layout "
                f"{LAYOUT}; if {split.name!r} is the split, pass "
                f"data_folder={split.parent}, otherwise move the file."
            )


def read_split(split: str | os.PathLike[str] | SplitFiles) -> list[Utterance]:
    """Pair the audio files of a split with their transcripts.

    Of two files, or two lines, with the same id the first in the order of
    their paths is used and the other is reported. Ids are compared in
    Unicode's composed form: some systems decompose the names of files.
    """
    files = split
    if not isinstance(files, SplitFiles):
        files, _ = list_split(Path(split))
    found: list[Utterance] = []
    audio = _first_of_each(
        ((Path(path).stem, path, path) for path in files.audio), found
    )
    lines = _first_of_each(_transcribed(files.transcripts), found)
    for name, (words, transcript) in lines.items():
        # of <speaker>/<chapter>/, whatever the names of the files
        speaker = Path(transcript).parts[-3]
        path, reason = transcript, None
        if name not in audio:
            reason = MISSING_AUDIO
        elif not normalised(words):
            reason = EMPTY_TRANSCRIPT
        else:
            path, _ = audio[name]
        found.append(Utterance(name, speaker, path, words, reason))
    for name, (path, _) in audio.items():
        if name not in lines:
            found.append(Utterance(name, "", path, "", MISSING_TRANSCRIPT))
    return found


def _first_of_each(
    entries: Iterable[tuple[str, str, str]], found: list[Utterance]
) -> dict[str, tuple[str, str]]:
    """id -> (value, file) of the first entry; later ones are reported."""
    first: dict[str, tuple[str, str]] = {}
    for name, value, path in entries:
        name = unicodedata.normalize("NFC", name)
        if name in first:
            found.append(Utterance(name, "", path, "", DUPLICATE_ID))
        else:
            first[name] = (value, path)
    return first


def _transcribed(paths: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(id, words with single spaces, file) of every transcript line."""
    for path in paths:
        for line in _lines(path):
            name, *words = line.split() or [""]
            if name:
                yield name, " ".join(words), path


def find_split(data_folder: Path, split: str) -> tuple[SplitFiles, list[int]]:
    """The files of a split, or an error that says where to look instead."""
    folder = split_folder(data_folder, split)
    if folder.is_dir():
        return list_split(folder)
    if is_elsewhere(split):
        raise InputError(
            f"tr_splits, dev_splits, te_splits: {split!r} is the path "
            f"{folder}, where no folder is; paths are absolute or start "
            f"from data_folder, {data_folder}."
        )
    if not data_folder.is_dir():
        raise InputError(
            f"data_folder: {data_folder} is not a folder; pass the one that "
            f"holds the splits ({LAYOUT})."
        )
    raise InputError(
        f"data_folder: {data_folder} has no split {split!r}; "
        f"{_where_else(data_folder, split)}."
    )


def _where_else(data_folder: Path, split: str) -> str:
    """What to pass instead of a data_folder without that split."""
    below = sorted(path for path in data_folder.iterdir() if path.is_dir())
    for where, folders in (("up", [data_folder.parent]), ("down", below)):
        for folder in folders:
            if (folder / split).is_dir():
                return f"it lies one level {where}: pass data_folder={folder}"
    pattern = f"*/*/*{TRANSCRIPT_SUFFIX}"
    splits = [path.name for path in below if any(path.glob(pattern))]
    if splits:
        return f"the splits there are {', '.join(splits)}"
    for folder in below:
        if any(folder.glob(f"*/{pattern}")):
            return f"there are splits one level down: try {folder}"
    return f"no folder there has the expected layout {LAYOUT}"


# ---- TED-LIUM 3 ------------------------------------------------------------

SPLITS = ("train", "dev", "test")  # of VoxPopuli, too
TALKS = "<data_folder>/legacy/{train,dev,test}/{sph,stm}/<talk>.{sph,stm}"
STM_LINE = "<talk> <channel> <speaker> <start> <end> [<labels>] <words>"
IGNORED = "ignore_time_segment_in_scoring"
NOT_SCORED = "not to be scored"
TALK_SUFFIXES = (".sph", ".wav", ".flac")
# Segments that end this much after the talk are cut to its end, in seconds.
ROUNDING_S = 0.05
Talks = tuple[list[Path], dict[str, Path]]
_NO_WORD = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^\]]*\]|\(\d+\)")


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

    def clip(self, path: Path, rate: int, frames: int) -> Clip:
        """The part of the talk; the end may be rounded up."""
        start, stop = round(self.start_s * rate), round(self.stop_s * rate)
        if start < frames < stop <= frames + ROUNDING_S * rate:
            stop = frames
        return Clip(str(path), SAMPLES, start, stop - start)


def find_talks(data_folder: Path, split: str) -> tuple[Talks, list[int]]:
    """The transcripts of a split, and its audio by name of the talk.

    ``data_folder`` is the unpacked release, its folder ``legacy``, or the
    folder above.
    """
    release = _release(data_folder)
    folder = release / split
    if not folder.is_dir() and split == "train":
        folder = release.parent / "data"
    if not (folder / "stm").is_dir():
        raise InputError(
            f"data_folder: {data_folder} has no split {split!r} of TED-LIUM "
            f"3: {release / split / 'stm'} is not a folder; the layout is "
            f"{TALKS}."
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
            f"is {TALKS}."
        )
    audio = {
        path.stem: path
        for path in sorted((folder / "sph").glob("*"))
        if path.suffix in TALK_SUFFIXES
    }
    newest = max(p.stat().st_mtime_ns for p in (*transcripts, *audio.values()))
    return (transcripts, audio), [len(audio), len(transcripts), newest]


def _release(data_folder: Path) -> Path:
    """The folder that holds the splits."""
    places = [data_folder, data_folder / "legacy"]
    places += sorted(data_folder.glob("TEDLIUM*/legacy"))
    for place in places:
        if any((place / split / "stm").is_dir() for split in SPLITS):
            return place
    return data_folder / "legacy"


def read_stm(path: Path) -> Iterator[StmLine]:
    """The segments of a talk, without comments (``;;``) and empty lines."""
    for number, line in enumerate(_lines(path), start=1):
        if line.strip() and not line.startswith(";;"):
            yield _parse(line, f"{path}:{number}")


def _parse(line: str, where: str) -> StmLine:
    parts = line.split(None, 5)
    try:
        talk, _, speaker, start, stop = parts[:5]
        start_s, stop_s = float(start), float(stop)
        # `not <=` holds for NaN, too
        if not 0 <= start_s <= stop_s < float("inf"):
            raise ValueError(f"from {start} to {stop} s")
    except ValueError as error:
        raise InputError(
            f"data_folder: {where}: is not a line of an STM file ({error}); it "
            f"must be {STM_LINE}. Mend it, or put ';;' before it."
        ) from error
    return StmLine(
        talk, speaker, start_s, stop_s, parts[5] if parts[5:] else ""
    )


def stm_words(text: str) -> str:
    """A transcript without labels, unknown words and noises.

    Example
    -------
    >>> stm_words("<o,f0,male> i 'm <unk> here(2) {NOISE} today")
    "I'M HERE TODAY"
    """
    return librispeech_words(_NO_WORD.sub(" ", text))


def read_talks(files: Talks) -> Iterator[Utterance]:
    """The segments of all talks of a split."""
    transcripts, audio = files
    for transcript in transcripts:
        headers: dict[str, tuple[int, int] | None] = {}
        for line in read_stm(transcript):
            path, clip = audio.get(line.talk), None
            if line.talk not in headers:
                headers[line.talk] = _header(path)
            words = stm_words(line.text)
            reason = _unusable(line, words, path, headers[line.talk])
            if reason is None:
                clip = line.clip(path, *headers[line.talk])
            where = str(clip or path or transcript)
            yield Utterance(line.name, line.speaker, where, words, reason)


def _header(path: Path | None) -> tuple[int, int] | None:
    """Samples per second, and samples; None if it cannot be read."""
    try:
        info = soundfile.info(str(path)) if path else None
    except (OSError, soundfile.SoundFileError):
        return None
    return (info.samplerate, info.frames) if info else None


def _unusable(
    line: StmLine, words: str, path: Path | None, header: Any
) -> str | None:
    """Why a segment cannot be used."""
    if IGNORED in line.text:
        return NOT_SCORED
    if not words:
        return EMPTY_TRANSCRIPT
    if line.start_s == line.stop_s:
        return EMPTY_AUDIO
    if path is None:
        return MISSING_AUDIO
    return UNREADABLE_AUDIO if header is None else None


# ---- VoxPopuli -------------------------------------------------------------

TABLES = (
    "<data_folder>/transcribed_data/en/asr_{train,dev,test}.tsv and "
    "<data_folder>/transcribed_data/en/<year>/<id>.ogg"
)
TABLE_COLUMNS = ("id", "normalized_text", "speaker_id")
SPEECH_SUFFIXES = (".ogg", ".wav", ".flac")
UNKNOWN_SPEAKER = "None"
YEAR_FOLDERS = "[0-9][0-9][0-9][0-9]"


def find_table(data_folder: Path, split: str) -> tuple[Path, list[int]]:
    """The table of a split, in the folder that holds the years.

    ``data_folder`` is the corpus, or its folder ``transcribed_data`` or
    ``en``.
    """
    name = f"asr_{split}.tsv"
    places = [data_folder / "transcribed_data/en", data_folder / "en"]
    tables = [folder / name for folder in (*places, data_folder)]
    for table in filter(Path.is_file, tables):
        status = table.stat()
        years = sorted(p for p in table.parent.glob("*") if p.is_dir())
        changed = [year.stat().st_mtime_ns for year in years]
        return table, [status.st_size, status.st_mtime_ns, *changed]
    raise InputError(
        f"data_folder: {data_folder} has no split {split!r} of VoxPopuli: "
        f"{tables[0]} is not a file; the layout is {TABLES}."
    )


def read_table(path: Path) -> Iterator[Utterance]:
    """The utterances of a split."""
    audio: dict[str, str] = {}
    for year in sorted(path.parent.glob(YEAR_FOLDERS)):
        for file in sorted(year.iterdir()):
            if file.suffix in SPEECH_SUFFIXES:
                audio.setdefault(file.stem, str(file))
    # Quotes in this table are those of the speeches.
    table = csv.DictReader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = table.fieldnames or ()
    missing = [name for name in TABLE_COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"data_folder: {path}:1: lacks the columns {', '.join(missing)}; "
            "make the table again with VoxPopuli's own tools."
        )
    for row in table:
        if None in row or None in row.values() or not row["id"]:
            raise InputError(
                f"data_folder: {path}:{table.line_num}: has more or fewer than "
                f"{len(columns)} cells, or no id; mend or remove the line."
            )
        name, speaker = row["id"], row["speaker_id"]
        words = librispeech_words(row["normalized_text"])
        reason = None if name in audio else MISSING_AUDIO
        yield Utterance(
            name,
            "" if speaker == UNKNOWN_SPEAKER else speaker,
            audio.get(name, str(path)),
            words,
            reason if words else EMPTY_TRANSCRIPT,
        )


# ---- The key ``corpus`` ----------------------------------------------------

LIBRISPEECH = "librispeech"
CORPORA = {
    LIBRISPEECH: Corpus("LibriSpeech's layout", (), find_split, read_split),
    "tedlium3": Corpus("TED-LIUM 3", SPLITS, find_talks, read_talks),
    "voxpopuli": Corpus("VoxPopuli", SPLITS, find_table, read_table),
}
prepare_librispeech = CORPORA[LIBRISPEECH].prepare
prepare_tedlium3 = CORPORA["tedlium3"].prepare
prepare_voxpopuli = CORPORA["voxpopuli"].prepare


def preparation_of(corpus: str, librispeech: Callable) -> Callable:
    """What prepares a corpus: of LibriSpeech's layout, the function given."""
    _check_corpus(corpus)
    return librispeech if corpus == LIBRISPEECH else CORPORA[corpus].prepare


def _check_corpus(corpus: Any) -> None:
    if corpus not in CORPORA:
        raise InputError(
            f"corpus: {corpus!r} is unknown; use one of {', '.join(CORPORA)}."
        )


def _implied(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a corpus on the command line implies and is not given there.

    Nothing without ``corpus``: a YAML that names a corpus has its splits, too.
    """
    corpus = given.get("corpus", LIBRISPEECH)
    _check_corpus(corpus)
    if corpus == LIBRISPEECH:
        return {}
    folder = given.get("output_folder")
    if folder is None:
        raise InputError(
            f"corpus: {corpus} on the command line needs an output_folder "
            "there, too, for example --output_folder=results/"
            f"{corpus}: the YAML's belongs to its own corpus."
        )
    train, dev, test = CORPORA[corpus].splits
    implied = {
        "train_splits": [train],
        "dev_splits": [dev],
        "test_splits": [test],
        "train_csv": os.path.join(folder, "train.csv"),
        "valid_csv": os.path.join(folder, f"{dev}.csv"),
        "test_csv": [os.path.join(folder, f"{test}.csv")],
    }
    return {key: implied[key] for key in implied if key not in given}


def with_corpus(path: str, overrides: str) -> str:
    """Options of the command line, with those that ``--corpus`` implies.

    Every YAML of the recipe is written for LibriSpeech's layout. Another
    corpus brings its own splits, manifests and a part of the system's name.
    What is not YAML is left to be refused where options are loaded.
    """
    try:
        given = yaml.safe_load(overrides or "")
        text = Path(path).read_text(encoding="utf-8")
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return overrides
    implied = _implied(given) if isinstance(given, dict) else {}
    if not implied:
        return overrides
    if "system_name" not in given:
        # "Conformer-CTC, 6 exits (LibriSpeech 960 h)"
        name = re.search(r"(?m)^system_name: *([^(#\n]*)", text)
        title = CORPORA[given["corpus"]].title
        implied["system_name"] = f"{name[1].strip() if name else ''} ({title})"
    return yaml.safe_dump({**given, **implied})
