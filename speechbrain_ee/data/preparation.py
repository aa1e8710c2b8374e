"""From a corpus to its manifests: options, splits, audio, files.

Keeps to the conventions of SpeechBrain's LibriSpeech recipes: one
``<save_folder>/<split>.csv`` per split with the columns ``ID, duration (s),
wav (absolute path), spk_id, wrd``, options to merge splits and to take only
the first sentences. Every id that is not in a manifest is counted in the log
and listed in ``<save_folder>/<split>.skipped.csv``. ``prepare.json`` says from
which arguments and corpus the manifests came; it is emptied before the first
is touched and filled after the last, so it never vouches for a mixture.

Limits on the duration hold for the training splits alone, since an error
rate on the shorter half of a test set is not comparable to anybody's. What
is broken (unreadable, empty, without words, or impossibly fast) is left out
of every split.

A split is the name of a folder in ``data_folder``, or a path to one in the
same layout elsewhere: absolute, or from ``data_folder``. The manifest of a
path is named after its last two folders, so that ``../digits/test`` is the
set ``digits-test`` and does not meet ``test``.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_ee import __version__
from speechbrain_ee.data.manifests import (
    COLUMNS,
    SKIPPED_COLUMNS,
    WAY_OUT,
    check_audio,
    file_of,
    first_few,
    write_csv,
)
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file
from speechbrain_ee.schema import Record, plain, read_record

logger = logging.getLogger(__name__)

DUPLICATE_ID = "duplicate id"
EMPTY_TRANSCRIPT = "empty transcript"
MISSING_AUDIO = "missing audio"
TOO_FAST = "too short for its transcript"
TOO_SHORT = "shorter than min_duration_s"
TOO_LONG = "longer than max_duration_s"
NO_SPLIT = "all are empty; name at least one split of the corpus."
FINGERPRINT = "prepare.json"
# Fluent reading has about 15 characters per second and the fastest readers
# stay below 25; above 35 the words cannot belong to the recording, and CTC
# with frames of 40 ms (25 per second) could hardly align them.
MAX_CHARACTERS_PER_S = 35.0
READERS = 8  # threads: reading headers waits for the disk
PROGRESS_AFTER_S = 5.0

Splits = str | Sequence[str]
Limits = tuple[float, float | None]  # shortest and longest, in seconds
Row = tuple[str, str, str, str, str]  # of COLUMNS


@dataclass(frozen=True)
class Utterance:
    """A recording and what is said in it, or why it cannot be used."""

    utterance_id: str
    speaker: str  # or "" if unknown
    path: str
    words: str
    reason: str | None = None


class SplitReport(Record):
    """What became of a split.

    Arguments
    ---------
    split : str
        Its name.
    utterances : int
        How many are in the manifest.
    hours : float
        How long they are together.
    skipped : mapping
        Reason -> ids that were left out for it.
    """

    split: str
    utterances: int
    hours: float
    skipped: dict[str, tuple[str, ...]]


class _Prepared(Record):
    """What ``prepare.json`` holds."""

    fingerprint: dict[str, Any]
    reports: dict[str, SplitReport]


@dataclass(frozen=True)
class Corpus:
    """A kind of corpus: where its splits are, and how to read them.

    ``splits`` names those that it has; empty if every folder may be one.
    ``find`` takes ``data_folder`` and a split and returns its files, which
    ``read`` turns into utterances, and numbers that differ when the corpus
    has changed.
    """

    title: str
    splits: tuple[str, ...]
    find: Callable[[Path, str], tuple[Any, list[int]]]
    read: Callable[[Any], Iterable[Utterance]]

    def prepare(
        self,
        data_folder: str | os.PathLike[str],
        save_folder: str | os.PathLike[str],
        tr_splits: Splits = (),
        dev_splits: Splits = (),
        te_splits: Splits = (),
        select_n_sentences: int | Sequence[int] | None = None,
        merge_lst: Splits = (),
        merge_name: str | None = None,
        skip_prep: bool = False,
        min_duration_s: float = 0.0,
        max_duration_s: float | None = None,
    ) -> dict[str, SplitReport]:
        """Write the manifests of a corpus.

        A second call with the same arguments on an unchanged corpus does
        nothing (``<save_folder>/prepare.json`` remembers both) and returns the
        same reports.

        Arguments
        ---------
        data_folder : path
            The folder that holds the splits.
        save_folder : path
            Where the manifests go; made if missing.
        tr_splits, dev_splits, te_splits : str or sequence of str
            Names of the splits to prepare. In LibriSpeech's layout also
            paths to splits of other corpora: absolute, or from
            ``data_folder``. A path's manifest is named after its last two
            folders, ``digits-test.csv`` for ``../digits/test``.
        select_n_sentences : int or sequence of int
            Only the first so many usable utterances by id; one number for
            all splits, or one for each in the order train, dev, test.
        merge_lst : str or sequence of str
            Splits (of this call) to write into one more manifest.
        merge_name : str
            File name of that manifest, ``.csv`` may be left out. Without
            effect while ``merge_lst`` is empty.
        skip_prep : bool
            Do nothing.
        min_duration_s, max_duration_s : float
            Limits for training utterances, in seconds.

        Returns
        -------
        dict of str to SplitReport
            By name of the manifest: one per split and one for the merged
            manifest; empty with ``skip_prep``.

        Raises
        ------
        InputError
            If a folder, split or option cannot be used, a transcript is
            broken, or if nothing usable is left of a split.
        """
        if skip_prep:
            return {}
        given = names_of(tr_splits, dev_splits, te_splits)
        merged = names_of(merge_lst)
        limits_s = (min_duration_s, max_duration_s)
        unknown = [split for split in given if split not in self.splits]
        if not given or (self.splits and unknown):
            known = f"{self.title} has the splits {', '.join(self.splits)}"
            raise InputError(
                "tr_splits, dev_splits, te_splits: "
                + (f"{', '.join(unknown)}: {known}." if given else NO_SPLIT)
            )
        unknown = [name for name in merged if name not in given]
        if unknown:
            raise InputError(
                f"merge_lst: {', '.join(unknown)} not among the splits that "
                f"are prepared; choose from {', '.join(given)}."
            )
        if max_duration_s is not None and max_duration_s <= min_duration_s:
            raise InputError(
                f"max_duration_s: {max_duration_s} leaves nothing above "
                f"min_duration_s {min_duration_s}; raise it or pass None."
            )
        source, save = _absolute(data_folder), _absolute(save_folder)
        names = split_names(source, given)
        training = [names[split] for split in names_of(tr_splits)]
        merged = [names[split] for split in merged]
        stem = _merged_stem(merge_name, merged, names.values())
        numbers = _numbers_of(select_n_sentences, list(names.values()))
        found = {names[split]: self.find(source, split) for split in given}
        states = {name: state for name, (_, state) in found.items()}
        fingerprint: dict[str, Any] = {
            "data_folder": str(source),
            "training": training,
            "select_n_sentences": numbers,
            "merge": [stem, merged],
            "durations_s": limits_s,
        }
        if self.splits:
            fingerprint = {"corpus": self.title, **fingerprint, "state": states}
        else:
            fingerprint["corpus"] = states
            fingerprint["elsewhere"] = {
                names[split]: str(split_folder(source, split))
                for split in given
                if is_elsewhere(split)
            }
        fingerprint = {"version": __version__, **fingerprint}
        fingerprint = json.loads(json.dumps(fingerprint))
        earlier = _earlier_reports(save, fingerprint)
        if earlier is not None:
            logger.info("%s: manifests are up to date, left as they are", save)
            return earlier
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"save_folder: {save} cannot be made ({error.strerror}); pass "
                "a folder that you may write to."
            ) from error
        # Better refused now than after reading the headers of 281,000 files.
        _write_json(save, {})
        rows: dict[str, list[Row]] = {}
        reports: dict[str, SplitReport] = {}
        for split, (files, _) in found.items():
            limits = limits_s if split in training else (0.0, None)
            rows[split], skipped = _usable(
                self.read(files), numbers[split], limits, f"reading {split}"
            )
            reports[split] = _save_split(save, split, rows[split], skipped)
        if stem is not None:
            together, skipped = _merged([rows[name] for name in merged])
            reports[stem] = _save_split(save, stem, together, skipped)
        _write_json(save, plain(_Prepared(fingerprint, reports)))
        return reports


# ---- What the options mean -------------------------------------------------


def names_of(*groups: Splits | None) -> list[str]:
    """All names in order, each once; a lone string is one name."""
    return list(dict.fromkeys(name for g in groups for name in _listed(g)))


def _absolute(folder: str | os.PathLike[str]) -> Path:
    """The folder as an absolute path; links stay what they are."""
    return Path(os.path.abspath(os.path.expanduser(folder)))


def _merged_stem(
    merge_name: str | None, merged: Sequence[str], splits: Iterable[str]
) -> str | None:
    """Name of the manifest of several splits; None if there is none."""
    stem = (merge_name or "").removesuffix(".csv")
    if not merged or merged == [stem]:
        return None  # "train" merged into train.csv is there already
    if Path(stem).name != stem or not stem:
        raise InputError(
            f"merge_name: {merge_name!r} is no file name for the merge of "
            f"{', '.join(merged)}; pass one, for instance train.csv."
        )
    if stem in splits:
        raise InputError(
            f"merge_name: {stem}.csv is already the manifest of the split "
            f"{stem}; pass another name."
        )
    return stem


def _numbers_of(
    select: int | Sequence[int] | None, splits: Sequence[str]
) -> dict[str, int | None]:
    """How many sentences to take of each split; None: all."""
    if select is None or isinstance(select, int):
        select = [select] * len(splits)
    if len(select) != len(splits) or any(
        n is not None and n < 1 for n in select
    ):
        raise InputError(
            f"select_n_sentences: {list(select)} must be one positive number, "
            f"or one for each of the {len(splits)} splits "
            f"({', '.join(splits)}); None takes all sentences."
        )
    return dict(zip(splits, select))


# ---- Splits and the names of their manifests -------------------------------


def split_folder(data_folder: Path, split: str) -> Path:
    """Where a split is, whether or not it exists; links are not followed."""
    if os.path.normpath(split or ".") in (".", "..", os.sep):
        raise InputError(
            f"tr_splits, dev_splits, te_splits: {split!r} is not the name of "
            "one folder, or a path to one; pass the folder above as "
            "data_folder."
        )
    return _absolute(data_folder / os.path.expanduser(split))


def is_elsewhere(split: str) -> bool:
    """Whether a split is given as a path."""
    return Path(os.path.normpath(split)).name != os.path.normpath(split)


def split_names(data_folder: Path, splits: Sequence[str]) -> dict[str, str]:
    """By split, the name of its manifest, without ``.csv``."""
    names: dict[str, str] = {}
    for split in splits:
        folder = split_folder(data_folder, split)
        name = folder.name
        if is_elsewhere(split):
            name = f"{folder.parent.name}-{name}".lstrip("-")
        for other, taken in names.items():
            if taken == name:
                raise InputError(
                    f"tr_splits, dev_splits, te_splits: {other!r} and "
                    f"{split!r} would both be written to {name}.csv; leave "
                    "one out, or link to it under another name."
                )
        names[split] = name
    return names


def dev_set_manifest(hparams: Mapping[str, Any]) -> str:
    """The manifest of the development set.

    It is that of ``dev_splits``, unless ``valid_csv`` names another: with
    ``skip_prep`` any, and where manifests are prepared one of these or one
    outside ``output_folder``.
    """
    given, made = hparams["valid_csv"], _made(hparams, "dev_splits")
    if given and (hparams["skip_prep"] or _kept([given], made, hparams)):
        return given
    if not made:
        raise InputError(
            "dev_splits: is empty, and valid_csv names no manifest outside "
            "output_folder; the best checkpoint is chosen and policies are "
            "calibrated on that set. Name a split, or pass --valid_csv=..."
        )
    if len(made) > 1:
        logger.warning(
            "dev_splits: the development set is %s; the other splits are "
            "prepared, and used by nothing.",
            made[0],
        )
    return made[0]


def test_set_manifests(hparams: Mapping[str, Any]) -> list[str]:
    """The manifests of all test sets, those of ``test_csv`` first.

    They are those of ``test_splits``, unless ``test_csv`` lists others. Where
    manifests are prepared, what ``test_csv`` lacks of them is added, and what
    it lists in ``output_folder`` of other splits is left out.
    """
    paths = _listed(hparams["test_csv"])
    if not hparams["skip_prep"] or hparams["test_csv"] is None:
        made = _made(hparams, "test_splits")
        paths = _kept(paths, made, hparams) if made else paths
        known = {Path(path).stem for path in paths}
        paths += [path for path in made if Path(path).stem not in known]
    stems = [Path(path).stem for path in paths]
    twice = [stem for stem in stems if stems.count(stem) > 1]
    if twice:
        raise InputError(
            f"test_csv: two manifests are named {twice[0]}.csv, and results "
            "are filed by that name; rename one."
        )
    if not paths:
        raise InputError(
            "test_splits, test_csv: both are empty; name at least one test set."
        )
    return paths


def _made(hparams: Mapping[str, Any], key: str) -> list[str]:
    """Where data preparation writes the manifests of some splits."""
    splits = _listed(hparams[key])
    names = (
        split_names(_absolute(hparams["data_folder"]), splits) if splits else {}
    )
    output = hparams["output_folder"]
    return [os.path.join(output, f"{name}.csv") for name in names.values()]


def _kept(
    paths: Sequence[str], made: Sequence[str], hparams: Mapping[str, Any]
) -> list[str]:
    """Those that are made, or lie outside ``output_folder``."""
    output, stems = Path(hparams["output_folder"]), [Path(m).stem for m in made]
    return [
        path
        for path in paths
        if Path(path).parent != output or Path(path).stem in stems
    ]


def _listed(names: Splits | None) -> list[str]:
    """A lone string is one name."""
    return [names] if isinstance(names, str) else list(names or ())


# ---- From utterances to rows -----------------------------------------------


def _usable(
    found: Iterable[Utterance], number: int | None, limits_s: Limits, title: str
) -> tuple[list[Row], list[Row]]:
    """The first usable utterances of a split (None: all), and the others.

    What comes after them is not looked at, so that a try-out on a large
    corpus is fast.
    """
    found = sorted(
        _without_twins(found), key=lambda one: (one.utterance_id, one.path)
    )
    waiting = [one for one in found if one.reason is None]
    rows: list[Row] = []
    skipped = [_skip(one, one.reason) for one in found if one.reason]
    if number is None:
        number = len(waiting)
    while waiting and len(rows) < number:
        missing = number - len(rows)
        now, waiting = waiting[:missing], waiting[missing:]
        facts = check_all([one.path for one in now], title)
        for one, (duration_s, fault) in zip(now, facts, strict=True):
            reason = fault or _misfit(one.words, duration_s, *limits_s)
            if reason is None:
                row = (one.utterance_id, str(duration_s), one.path)
                rows.append((*row, one.speaker, one.words))
            else:
                skipped.append(_skip(one, reason))
    return rows, skipped


def _without_twins(found: Iterable[Utterance]) -> Iterator[Utterance]:
    """Of usable utterances with one id the first is used."""
    seen = set()
    for one in found:
        if one.reason is None and one.utterance_id in seen:
            path = file_of(one.path)
            one = replace(one, path=path, reason=DUPLICATE_ID)
        elif one.reason is None:
            seen.add(one.utterance_id)
        yield one


def _skip(one: Utterance, reason: str) -> Row:
    """A row of the list of what was skipped."""
    return one.utterance_id, one.path, reason


def check_all(
    paths: Sequence[str], title: str
) -> list[tuple[float, str | None]]:
    """:func:`check_audio` for many files at once, in their order."""
    pool = ThreadPoolExecutor(READERS)
    try:
        facts = pool.map(check_audio, paths)
        return list(
            tqdm(facts, title, len(paths), unit="file", delay=PROGRESS_AFTER_S)
        )
    finally:
        # An interrupt must not wait for a hundred thousand open tasks.
        pool.shutdown(cancel_futures=True)


def _misfit(
    words: str, duration_s: float, shortest_s: float, longest_s: float | None
) -> str | None:
    """Why sound audio cannot be used with these words."""
    if len(words) > MAX_CHARACTERS_PER_S * duration_s:
        return TOO_FAST
    if duration_s < shortest_s:
        return TOO_SHORT
    if longest_s is not None and duration_s > longest_s:
        return TOO_LONG
    return None


def _merged(parts: Sequence[Sequence[Row]]) -> tuple[list[Row], list[Row]]:
    """Rows of several splits by id; of two with one id, the first is used."""
    first: dict[str, Row] = {}
    skipped = []
    for row in (row for rows in parts for row in rows):
        if first.setdefault(row[0], row) is not row:
            skipped.append((row[0], row[2], DUPLICATE_ID))
    return [first[name] for name in sorted(first)], skipped


# ---- From rows to files ----------------------------------------------------


def _save_split(
    save_folder: Path,
    split: str,
    rows: Sequence[Row],
    skipped: Sequence[Row],
) -> SplitReport:
    """Write the manifest of a split and say what it lacks."""
    manifest = save_folder / f"{split}.csv"
    list_of_skipped = save_folder / f"{split}.skipped.csv"
    lists: dict[str, list[str]] = {}
    for name, _, reason in skipped:
        lists.setdefault(reason, []).append(name)
    ids = {reason: tuple(names) for reason, names in lists.items()}
    if skipped:
        write_csv(list_of_skipped, SKIPPED_COLUMNS, skipped)
    else:
        list_of_skipped.unlink(missing_ok=True)
    hours = sum(float(row[1]) for row in rows) / 3600
    logger.info(
        "%s: %d utterances, %.2f h, %d left out",
        split,
        len(rows),
        hours,
        len(skipped),
    )
    for reason, names in ids.items():
        logger.warning(
            "%s: %d left out, %s: %s (all in %s)",
            split,
            len(names),
            reason,
            first_few(names),
            list_of_skipped,
        )
    if rows:
        write_csv(manifest, COLUMNS, rows)
        return SplitReport(split, len(rows), hours, ids)
    # A manifest of an earlier call must not pass for this one's.
    manifest.unlink(missing_ok=True)
    if not ids:
        raise InputError(
            f"data_folder: the transcripts of the split {split} have no "
            "lines; fill them, or leave the split out."
        )
    counts = [f"{len(names)} {reason}" for reason, names in ids.items()]
    raise InputError(
        f"data_folder: nothing of the split {split} can be used "
        f"({', '.join(counts)}); mend the files that {list_of_skipped} "
        "lists, or leave the split out."
    )


def _earlier_reports(
    save_folder: Path, fingerprint: Mapping[str, Any]
) -> dict[str, SplitReport] | None:
    """The reports of an earlier call whose manifests still hold."""
    try:
        stored = read_record(save_folder / FINGERPRINT, _Prepared, WAY_OUT)
    except InputError:
        return None  # absent, unfinished or damaged: make it anew
    manifests = [save_folder / f"{name}.csv" for name in stored.reports]
    if stored.fingerprint == fingerprint and all(
        path.is_file() for path in manifests
    ):
        return stored.reports
    return None


def _write_json(save_folder: Path, content: Mapping[str, Any]) -> None:
    with whole_file(save_folder / FINGERPRINT, WAY_OUT, text=True) as stream:
        json.dump(content, stream, indent=1)
