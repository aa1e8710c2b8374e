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

import os
from collections.abc import Sequence

from speechbrain_ee.data.choices import (
    Splits,
    absolute,
    check_options,
    merged_stem,
    names_of,
    numbers_of,
)
from speechbrain_ee.data.layout import SplitFiles, list_split, read_split
from speechbrain_ee.data.manifests import SplitReport
from speechbrain_ee.data.preparation import Work, write_manifests
from speechbrain_ee.data.splits import find_split, is_elsewhere, split_names


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
    given = names_of(tr_splits, dev_splits, te_splits)
    merged = names_of(merge_lst)
    check_options(given, merged, min_duration_s, max_duration_s)
    source, save = absolute(data_folder), absolute(save_folder)
    names = split_names(source, given)
    splits = list(names.values())
    training = [names[split] for split in names_of(tr_splits)]
    merged = [names[split] for split in merged]
    stem = merged_stem(merge_name, merged, splits)
    numbers = numbers_of(select_n_sentences, splits)
    folders = {names[split]: find_split(source, split) for split in given}
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
    read = {
        split: lambda files=files[split]: read_split(files) for split in splits
    }
    limits_s = (min_duration_s, max_duration_s)
    work = Work(read, numbers, training, limits_s, stem, merged)
    return write_manifests(save, fingerprint, work)


def _state(files: SplitFiles) -> list[int]:
    """Numbers that differ when the corpus has changed."""
    return [len(files.audio), len(files.transcripts), files.newest_mtime_ns]
