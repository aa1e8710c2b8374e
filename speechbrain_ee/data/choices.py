"""What the arguments of data preparation mean, whatever the corpus.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
from collections.abc import Sequence
from pathlib import Path

from speechbrain_ee.data.layout import DUPLICATE_ID, Skipped
from speechbrain_ee.data.manifests import Row
from speechbrain_ee.errors import InputError

Splits = str | Sequence[str]


def absolute(folder: str | os.PathLike[str]) -> Path:
    """The folder as an absolute path; links stay what they are."""
    return Path(os.path.abspath(os.path.expanduser(folder)))


def merge_rows(
    parts: Sequence[Sequence[Row]],
) -> tuple[list[Row], list[Skipped]]:
    """Rows of several splits as those of one."""
    first: dict[str, Row] = {}
    skipped = []
    for row in (row for rows in parts for row in rows):
        if row[0] in first:
            skipped.append(Skipped(row[0], row[2], DUPLICATE_ID))
        else:
            first[row[0]] = row
    return [first[name] for name in sorted(first)], skipped


def names_of(*groups: Splits) -> list[str]:
    """All names in order, each once."""
    names: dict[str, None] = {}
    for group in groups:
        group = [group] if isinstance(group, str) else group
        names.update(dict.fromkeys(group or ()))
    return list(names)


def check_options(
    splits: Sequence[str],
    merged: Sequence[str],
    min_duration_s: float,
    max_duration_s: float | None,
) -> None:
    """Refuse options that contradict each other."""
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


def merged_stem(
    merge_name: str | None, merged: Sequence[str], splits: Sequence[str]
) -> str | None:
    """Name of the manifest of several splits."""
    if not merged:
        return None
    stem = (merge_name or "").removesuffix(".csv")
    if Path(stem).name != stem or not stem:
        raise InputError(
            f"merge_name: {merge_name!r} is no file name for the merge of "
            f"{', '.join(merged)}; pass one, for instance train.csv."
        )
    if list(merged) == [stem]:
        return None  # "train" merged into train.csv is there already
    if stem in splits:
        raise InputError(
            f"merge_name: {stem}.csv is already the manifest of the split "
            f"{stem}; pass another name."
        )
    return stem


def numbers_of(
    select: int | Sequence[int] | None, splits: Sequence[str]
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
