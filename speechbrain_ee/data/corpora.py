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
    talk (see :mod:`speechbrain_ee.data.clips`). A line of an STM file is
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

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import yaml

from speechbrain_ee.data.clips import (
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
    Skipped,
    SplitText,
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
    """What lies in a split's folder, sorted by path.

    The newest change of any folder or transcript shows a changed corpus.
    """

    folder: Path
    audio: tuple[str, ...]
    transcripts: tuple[str, ...]
    newest_mtime_ns: int


def list_split(folder: str | os.PathLike[str]) -> SplitFiles:
    """List the audio and transcript files of ``<data_folder>/<split>``."""
    top = Path(folder)
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
    return SplitFiles(
        top, tuple(sorted(audio)), tuple(sorted(transcripts)), newest_mtime_ns
    )


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


def read_split(split: str | os.PathLike[str] | SplitFiles) -> SplitText:
    """Pair the audio files of a split with their transcripts.

    Of two files, or two lines, with the same id the first in the order of
    their paths is used and the other is reported. Ids are compared in
    Unicode's composed form: some systems decompose the names of files.
    """
    files = split if isinstance(split, SplitFiles) else list_split(split)
    skipped: list[Skipped] = []
    audio = _first_of_each(
        ((Path(path).stem, path, path) for path in files.audio), skipped
    )
    lines = _first_of_each(_transcribed(files.transcripts), skipped)
    utterances = []
    for name, (words, transcript) in lines.items():
        if name not in audio:
            skipped.append(Skipped(name, transcript, MISSING_AUDIO))
        elif not normalised(words):
            skipped.append(Skipped(name, transcript, EMPTY_TRANSCRIPT))
        else:
            # of <speaker>/<chapter>/, whatever the names of the files
            speaker = Path(transcript).parts[-3]
            utterances.append(Utterance(name, speaker, audio[name][0], words))
    skipped += [
        Skipped(name, path, MISSING_TRANSCRIPT)
        for name, (path, _) in audio.items()
        if name not in lines
    ]
    return SplitText.of(utterances, skipped)


def _first_of_each(
    entries: Iterable[tuple[str, str, str]], skipped: list[Skipped]
) -> dict[str, tuple[str, str]]:
    """id -> (value, file) of the first entry; later ones are reported."""
    first: dict[str, tuple[str, str]] = {}
    for name, value, path in entries:
        name = unicodedata.normalize("NFC", name)
        if name in first:
            skipped.append(Skipped(name, path, DUPLICATE_ID))
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


def find_split(data_folder: Path, split: str) -> SplitFiles:
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
    if (data_folder.parent / split).is_dir():
        return f"it lies one level up: pass data_folder={data_folder.parent}"
    below = sorted(path for path in data_folder.iterdir() if path.is_dir())
    for folder in below:
        if (folder / split).is_dir():
            return f"it lies one level down: pass data_folder={folder}"
    pattern = f"*/*/*{TRANSCRIPT_SUFFIX}"
    splits = [path.name for path in below if any(path.glob(pattern))]
    if splits:
        return f"the splits there are {', '.join(splits)}"
    for folder in below:
        if any(folder.glob(f"*/{pattern}")):
            return f"there are splits one level down: try {folder}"
    return f"no folder there has the expected layout {LAYOUT}"


def _split_state(files: SplitFiles) -> list[int]:
    return [len(files.audio), len(files.transcripts), files.newest_mtime_ns]


# ---- TED-LIUM 3 ------------------------------------------------------------

SPLITS = ("train", "dev", "test")  # of VoxPopuli, too
TALKS = "<data_folder>/legacy/{train,dev,test}/{sph,stm}/<talk>.{sph,stm}"
STM_LINE = "<talk> <channel> <speaker> <start> <end> [<labels>] <words>"
IGNORED = "ignore_time_segment_in_scoring"
NOT_SCORED = "not to be scored"
TALK_SUFFIXES = (".sph", ".wav", ".flac")
# Segments that end this much after the talk are cut to its end, in seconds.
ROUNDING_S = 0.05
_NO_WORD = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^\]]*\]|\(\d+\)")


@dataclass(frozen=True)
class TalkFiles:
    """What lies in a split: transcripts, and audio by name of the talk."""

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
    """The files of a split.

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
    return TalkFiles(tuple(transcripts), audio)


def _release(data_folder: Path) -> Path:
    """The folder that holds the splits."""
    places = [data_folder, data_folder / "legacy"]
    places += sorted(data_folder.glob("TEDLIUM*/legacy"))
    for place in places:
        if any((place / split / "stm").is_dir() for split in SPLITS):
            return place
    return data_folder / "legacy"


def _talks_state(files: TalkFiles) -> list[int]:
    paths = (*files.transcripts, *files.audio.values())
    newest = max(path.stat().st_mtime_ns for path in paths)
    return [len(files.audio), len(files.transcripts), newest]


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
    return SplitText.of(utterances.values(), skipped)


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


# ---- VoxPopuli -------------------------------------------------------------

TABLES = (
    "<data_folder>/transcribed_data/en/asr_{train,dev,test}.tsv and "
    "<data_folder>/transcribed_data/en/<year>/<id>.ogg"
)
TABLE_COLUMNS = ("id", "normalized_text", "speaker_id")
SPEECH_SUFFIXES = (".ogg", ".wav", ".flac")
UNKNOWN_SPEAKER = "None"
YEAR_FOLDERS = "[0-9][0-9][0-9][0-9]"


def find_table(data_folder: Path, split: str) -> Path:
    """The table of a split, in the folder that holds the years.

    ``data_folder`` is the corpus, or its folder ``transcribed_data`` or
    ``en``.
    """
    name = f"asr_{split}.tsv"
    places = [data_folder / "transcribed_data/en", data_folder / "en"]
    for folder in (*places, data_folder):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"data_folder: {data_folder} has no split {split!r} of VoxPopuli: "
        f"{places[0] / name} is not a file; the layout is {TABLES}."
    )


def _table_state(table: Path) -> list[int]:
    status = table.stat()
    years = sorted(path for path in table.parent.glob("*") if path.is_dir())
    changed = [year.stat().st_mtime_ns for year in years]
    return [status.st_size, status.st_mtime_ns, *changed]


def read_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Id, text and speaker, empty if unknown, of every line."""
    lines = _lines(path)
    columns = lines[0].rstrip("\r").split("\t")
    missing = [name for name in TABLE_COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"data_folder: {path}:1: lacks the columns {', '.join(missing)}; "
            "make the table again with VoxPopuli's own tools."
        )
    places = [columns.index(name) for name in TABLE_COLUMNS]
    # Not by the csv module: quotes in this table are those of the speeches.
    for number, line in enumerate(lines[1:], start=2):
        cells = line.rstrip("\r").split("\t")
        if cells == [""]:
            continue
        if len(cells) != len(columns) or not cells[places[0]]:
            raise InputError(
                f"data_folder: {path}:{number}: has {len(cells)} cells, of "
                f"{len(columns)}, or no id; mend or remove the line."
            )
        name, text, speaker = (cells[place] for place in places)
        yield name, text, "" if speaker == UNKNOWN_SPEAKER else speaker


def read_table(table: Path) -> SplitText:
    """The utterances of a split."""
    audio: dict[str, str] = {}
    for year in sorted(table.parent.glob(YEAR_FOLDERS)):
        for path in sorted(year.iterdir()):
            if path.suffix in SPEECH_SUFFIXES:
                audio.setdefault(path.stem, str(path))
    utterances: dict[str, Utterance] = {}
    skipped = []
    for name, text, speaker in read_rows(table):
        words = librispeech_words(text)
        path = audio.get(name)
        reason = None
        if not words:
            reason = EMPTY_TRANSCRIPT
        elif path is None:
            reason = MISSING_AUDIO
        elif name in utterances:
            reason = DUPLICATE_ID
        if reason:
            skipped.append(Skipped(name, path or str(table), reason))
        else:
            utterances[name] = Utterance(name, speaker, path, words)
    return SplitText.of(utterances.values(), skipped)


# ---- The key ``corpus`` ----------------------------------------------------

LIBRISPEECH = "librispeech"
CORPORA = {
    LIBRISPEECH: Corpus(
        "LibriSpeech's layout", (), find_split, _split_state, read_split
    ),
    "tedlium3": Corpus(
        "TED-LIUM 3", SPLITS, find_talks, _talks_state, read_talks
    ),
    "voxpopuli": Corpus(
        "VoxPopuli", SPLITS, find_table, _table_state, read_table
    ),
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
