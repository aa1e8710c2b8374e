"""Which corpus a run trains on: the key ``corpus``.

Every YAML of the recipe is written for LibriSpeech's layout. Another corpus
brings its own splits, so ``--corpus=tedlium3`` on the command line stands for
all options that follow from it.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from speechbrain_ee.data.preparation import FixedSplits
from speechbrain_ee.data.tedlium import TEDLIUM3
from speechbrain_ee.data.voxpopuli import VOXPOPULI
from speechbrain_ee.errors import InputError

LIBRISPEECH = "librispeech"
FIXED: dict[str, FixedSplits] = {
    "tedlium3": TEDLIUM3,
    "voxpopuli": VOXPOPULI,
}


def preparation_of(corpus: str, librispeech: Callable) -> Callable:
    """The function that prepares a corpus."""
    check_corpus(corpus)
    return librispeech if corpus == LIBRISPEECH else FIXED[corpus].prepare


def check_corpus(corpus: Any) -> None:
    """Refuse a corpus that is unknown."""
    known = (LIBRISPEECH, *FIXED)
    if corpus not in known:
        raise InputError(
            f"corpus: {corpus!r} is unknown; use one of {', '.join(known)}."
        )


def options_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a corpus on the command line implies."""
    corpus = given.get("corpus", LIBRISPEECH)
    check_corpus(corpus)
    if corpus == LIBRISPEECH:
        return {}
    folder = given.get("output_folder")
    if folder is None:
        raise InputError(
            f"corpus: {corpus} on the command line needs an output_folder "
            "there, too, for example --output_folder=results/"
            f"{corpus}: the YAML's belongs to its own corpus."
        )
    train, dev, test = FIXED[corpus].splits
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
    """Options of the command line, with those that ``--corpus`` implies."""
    try:
        given = yaml.safe_load(overrides or "")
        text = Path(path).read_text(encoding="utf-8")
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return overrides
    implied = options_of(given) if isinstance(given, dict) else {}
    if not implied:
        return overrides
    if "system_name" not in given:
        # "Conformer-CTC, 6 exits (LibriSpeech 960 h)"
        name = re.search(r"(?m)^system_name: *([^(#\n]*)", text)
        title = FIXED[given["corpus"]].title
        implied["system_name"] = f"{name[1].strip() if name else ''} ({title})"
    return yaml.safe_dump({**given, **implied})
