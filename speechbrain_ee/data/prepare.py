"""CSV manifests for any corpus in LibriSpeech layout.

Keeps to the conventions of SpeechBrain's LibriSpeech recipes: one
``<save_folder>/<split>.csv`` per split with the columns ``ID, duration (s),
wav (absolute path), spk_id, wrd``, options to merge splits and to take only
the first sentences. Nothing is left out without a word: every id that is not
in a manifest is counted in the log and listed in
``<save_folder>/<split>.skipped.csv``.

Limits on the duration hold for the training splits alone, since an error
rate on the shorter half of a test set is not comparable to anybody's. What
is broken (unreadable, empty, without words, or impossibly fast) is left out
of every split.

The recipe folder links to this file as ``librispeech_prepare.py``.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from speechbrain_ee.data.audio_check import check_all, reason_to_skip
from speechbrain_ee.data.layout import (
    CSV_VARIABLE,
    DUPLICATE_ID,
    Skipped,
    SplitFiles,
    Utterance,
    list_split,
    read_split,
)
from speechbrain_ee.data.manifests import (
    Row,
    SplitReport,
    begin,
    earlier_reports,
    finish,
    save_split,
)
from speechbrain_ee.data.splits import find_split, is_elsewhere, split_names
from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)

Splits = str | Sequence[str]


def prepare_librispeech(
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
    """Write the manifests of a corpus in LibriSpeech layout.

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
        Names of the splits to prepare, or paths to splits of other
        corpora: absolute, or from ``data_folder``. A path's manifest is
        named after its last two folders, ``digits-test.csv`` for
        ``../digits/test``.
    select_n_sentences : int or sequence of int
        Only the first so many usable utterances by id; one number for all
        splits, or one for each in the order train, dev, test.
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
        If a folder, split or option cannot be used, or if nothing usable
        is left of a split.
    """
    if skip_prep:
        return {}
    given = _names(tr_splits, dev_splits, te_splits)
    merged = _names(merge_lst)
    _check_options(given, merged, min_duration_s, max_duration_s)
    source, save = _absolute(data_folder), _absolute(save_folder)
    names = split_names(source, given)
    splits = list(names.values())
    training = [names[split] for split in _names(tr_splits)]
    merged = [names[split] for split in merged]
    stem = _merged_stem(merge_name, merged, splits)
    numbers = _numbers(select_n_sentences, splits)
    folders = {names[split]: find_split(source, split) for split in given}
    for folder in (source, *folders.values()):
        _check_source(folder)
    files = {split: list_split(folders[split]) for split in splits}
    fingerprint = {
        "data_folder": str(source),
        "training": training,
        "select_n_sentences": numbers,
        "merge": [stem, merged],
        "durations_s": [min_duration_s, max_duration_s],
        "corpus": {split: _state(files[split]) for split in splits},
        "elsewhere": {
            names[split]: str(folders[names[split]])
            for split in given
            if is_elsewhere(split)
        },
    }
    earlier = earlier_reports(save, fingerprint)
    if earlier is not None:
        logger.info("%s: manifests are up to date, left as they are", save)
        return earlier
    begin(save)
    rows: dict[str, list[Row]] = {}
    reports: dict[str, SplitReport] = {}
    for split in splits:
        limits_s = (0.0, None)
        if split in training:
            limits_s = (min_duration_s, max_duration_s)
        rows[split], skipped = _usable(files[split], numbers[split], limits_s)
        reports[split] = save_split(save, split, rows[split], skipped)
    if stem is not None:
        together, skipped = _merge([rows[split] for split in merged])
        reports[stem] = save_split(save, stem, together, skipped)
    finish(save, fingerprint, reports)
    return reports


def _absolute(folder: str | os.PathLike[str]) -> Path:
    """The folder as an absolute path; links stay what they are."""
    return Path(os.path.abspath(os.path.expanduser(folder)))


def _check_source(source: Path) -> None:
    """Raise InputError for a path that a manifest cannot hold."""
    if CSV_VARIABLE.search(str(source)):
        raise InputError(
            "data_folder: SpeechBrain's CSV reader takes the dollar sign in "
            f"{source} for a variable; link to it from another path."
        )


def _state(files: SplitFiles) -> list[int]:
    """Numbers that differ when the corpus has changed."""
    return [len(files.audio), len(files.transcripts), files.newest_mtime_ns]


def _usable(
    files: SplitFiles,
    number: int | None,
    limits_s: tuple[float, float | None],
) -> tuple[list[Row], list[Skipped]]:
    """The first ``number`` usable utterances of a split, and the others.

    What comes after them is not looked at, so that a try-out on a large
    corpus is fast.
    """
    text = read_split(files)
    rows: list[Row] = []
    skipped = list(text.skipped)
    waiting = list(text.utterances)
    if number is None:
        number = len(waiting)
    while waiting and len(rows) < number:
        missing = number - len(rows)
        now, waiting = waiting[:missing], waiting[missing:]
        title = f"reading {files.folder.name}"
        facts = check_all([one.path for one in now], title)
        for utterance, audio in zip(now, facts, strict=True):
            reason = reason_to_skip(utterance.words, audio, *limits_s)
            if reason is None:
                rows.append(_row(utterance, audio.duration_s))
            else:
                name, path = utterance.utterance_id, utterance.path
                skipped.append(Skipped(name, path, reason))
    return rows, skipped


def _row(utterance: Utterance, duration_s: float) -> Row:
    """The line of the manifest."""
    return (
        utterance.utterance_id,
        str(duration_s),
        utterance.path,
        utterance.speaker,
        utterance.words,
    )


def _merge(parts: list[list[Row]]) -> tuple[list[Row], list[Skipped]]:
    """All rows by id; of an id in two splits, the first split's row."""
    first: dict[str, Row] = {}
    skipped = []
    for row in (row for rows in parts for row in rows):
        if row[0] in first:
            skipped.append(Skipped(row[0], row[2], DUPLICATE_ID))
        else:
            first[row[0]] = row
    return [first[name] for name in sorted(first)], skipped


def _names(*groups: Splits) -> list[str]:
    """All names in order, each once; a lone string is one name."""
    names: dict[str, None] = {}
    for group in groups:
        group = [group] if isinstance(group, str) else group
        names.update(dict.fromkeys(group or ()))
    return list(names)


def _check_options(
    splits: list[str],
    merged: list[str],
    min_duration_s: float,
    max_duration_s: float | None,
) -> None:
    """Raise InputError for options that contradict each other."""
    if not splits:
        raise InputError(
            "tr_splits, dev_splits, te_splits: all are empty; name at least "
            "one split of the corpus."
        )
    unknown = [name for name in merged if name not in splits]
    if unknown:
        raise InputError(
            f"merge_lst: {', '.join(unknown)} not among the splits that are "
            f"prepared; choose from {', '.join(splits)}."
        )
    if max_duration_s is not None and max_duration_s <= min_duration_s:
        raise InputError(
            f"max_duration_s: {max_duration_s} leaves nothing above "
            f"min_duration_s {min_duration_s}; raise it or pass None."
        )


def _merged_stem(
    merge_name: str | None, merged: list[str], splits: list[str]
) -> str | None:
    """Name of the merged manifest without ``.csv``, None without one."""
    if not merged:
        return None
    stem = (merge_name or "").removesuffix(".csv")
    if Path(stem).name != stem or not stem:
        raise InputError(
            f"merge_name: {merge_name!r} is no file name for the merge of "
            f"{', '.join(merged)}; pass one, for instance train.csv."
        )
    if merged == [stem]:
        return None  # "train" merged into train.csv is there already
    if stem in splits:
        raise InputError(
            f"merge_name: {stem}.csv is already the manifest of the split "
            f"{stem}; pass another name."
        )
    return stem


def _numbers(
    select: int | Sequence[int] | None, splits: list[str]
) -> dict[str, int | None]:
    """How many sentences to take of each split."""
    if select is None or isinstance(select, int):
        select = [select] * len(splits)
    if len(select) != len(splits):
        raise InputError(
            f"select_n_sentences: {list(select)} has {len(select)} numbers "
            f"for {len(splits)} splits ({', '.join(splits)}); give one "
            "number, or one for each."
        )
    if any(number is not None and number < 1 for number in select):
        raise InputError(
            f"select_n_sentences: {list(select)} must be positive; pass "
            "None for all sentences."
        )
    return dict(zip(splits, select, strict=True))
