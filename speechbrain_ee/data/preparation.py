"""From the transcripts of splits to their manifests, whatever the corpus.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechbrain_ee.data.audio_check import check_all, reason_to_skip
from speechbrain_ee.data.choices import (
    Splits,
    absolute,
    check_options,
    merge_rows,
    merged_stem,
    names_of,
    numbers_of,
)
from speechbrain_ee.data.layout import Skipped, SplitText, Utterance
from speechbrain_ee.data.manifests import (
    Row,
    SplitReport,
    begin,
    earlier_reports,
    finish,
    save_split,
)
from speechbrain_ee.errors import InputError

logger = logging.getLogger(__name__)

Limits = tuple[float, float | None]


@dataclass(frozen=True)
class Work:
    """What manifests are made of."""

    read: Mapping[str, Callable[[], SplitText]]
    numbers: Mapping[str, int | None]
    training: Sequence[str]
    limits_s: Limits
    stem: str | None
    merged: Sequence[str]


def write_manifests(
    save: Path, fingerprint: Mapping[str, Any], work: Work
) -> dict[str, SplitReport]:
    """Write the manifests, unless they are there."""
    earlier = earlier_reports(save, fingerprint)
    if earlier is not None:
        logger.info("%s: manifests are up to date, left as they are", save)
        return earlier
    begin(save)
    rows: dict[str, list[Row]] = {}
    reports: dict[str, SplitReport] = {}
    for split, read in work.read.items():
        limits_s = work.limits_s if split in work.training else (0.0, None)
        rows[split], skipped = usable(
            read(), work.numbers[split], limits_s, f"reading {split}"
        )
        reports[split] = save_split(save, split, rows[split], skipped)
    if work.stem is not None:
        together, skipped = merge_rows([rows[name] for name in work.merged])
        reports[work.stem] = save_split(save, work.stem, together, skipped)
    finish(save, fingerprint, reports)
    return reports


def usable(
    text: SplitText, number: int | None, limits_s: Limits, title: str
) -> tuple[list[Row], list[Skipped]]:
    """The first usable utterances of a split, and the others.

    What comes after them is not looked at, so that a try-out on a large
    corpus is fast.
    """
    rows: list[Row] = []
    skipped = list(text.skipped)
    waiting = list(text.utterances)
    if number is None:
        number = len(waiting)
    while waiting and len(rows) < number:
        missing = number - len(rows)
        now, waiting = waiting[:missing], waiting[missing:]
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


@dataclass(frozen=True)
class FixedSplits:
    """A corpus whose splits are given."""

    title: str
    splits: tuple[str, ...]
    find: Callable[[Path, str], Any]
    state: Callable[[Any], list[int]]
    read: Callable[[Any], SplitText]

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
        """Write the manifests of the corpus.

        Arguments
        ---------
        data_folder : path
            Where the corpus is.
        save_folder : path
            Where the manifests go; made if missing.
        tr_splits, dev_splits, te_splits : str or sequence of str
            Which of the splits to prepare.
        select_n_sentences : int or sequence of int
            Only the first so many usable utterances by id; one number for
            all splits, or one for each in the order train, dev, test.
        merge_lst : str or sequence of str
            Splits to write into one more manifest.
        merge_name : str
            File name of that manifest.
        skip_prep : bool
            Do nothing.
        min_duration_s, max_duration_s : float
            Limits for training utterances, in seconds.

        Returns
        -------
        dict of str to SplitReport
            By name of the manifest; empty with ``skip_prep``.

        Raises
        ------
        InputError
            If a folder, split or option cannot be used, a transcript is
            broken, or if nothing usable is left of a split.
        """
        if skip_prep:
            return {}
        splits = names_of(tr_splits, dev_splits, te_splits)
        merged = names_of(merge_lst)
        check_options(splits, merged, min_duration_s, max_duration_s)
        self._check_splits(splits)
        source, save = absolute(data_folder), absolute(save_folder)
        stem = merged_stem(merge_name, merged, splits)
        numbers = numbers_of(select_n_sentences, splits)
        found = {split: self.find(source, split) for split in splits}
        limits_s = (min_duration_s, max_duration_s)
        fingerprint = {
            "corpus": self.title,
            "data_folder": str(source),
            "training": names_of(tr_splits),
            "select_n_sentences": numbers,
            "merge": [stem, merged],
            "durations_s": limits_s,
            "state": {split: self.state(found[split]) for split in splits},
        }
        read = {
            split: lambda files=found[split]: self.read(files)
            for split in splits
        }
        work = Work(read, numbers, names_of(tr_splits), limits_s, stem, merged)
        return write_manifests(save, fingerprint, work)

    def _check_splits(self, splits: Sequence[str]) -> None:
        unknown = [split for split in splits if split not in self.splits]
        if unknown:
            raise InputError(
                f"tr_splits, dev_splits, te_splits: {', '.join(unknown)}: "
                f"{self.title} has the splits {', '.join(self.splits)}."
            )
