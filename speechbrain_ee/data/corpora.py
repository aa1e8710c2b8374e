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
    """The function that prepares a corpus.

    Arguments
    ---------
    corpus : str
        The value of the key.
    librispeech : callable
        What prepares a corpus in LibriSpeech's layout.

    Returns
    -------
    callable
        Takes the arguments of
        :func:`speechbrain_ee.data.prepare.prepare_librispeech`.

    Raises
    ------
    InputError
        If the corpus is unknown.

    Example
    -------
    >>> preparation_of("librispeech", print) is print
    True
    """
    check_corpus(corpus)
    return librispeech if corpus == LIBRISPEECH else FIXED[corpus].prepare


def check_corpus(corpus: Any) -> None:
    """Refuse a corpus that is unknown.

    Arguments
    ---------
    corpus : Any
        The value of the key.

    Raises
    ------
    InputError
        If it is.
    """
    known = (LIBRISPEECH, *FIXED)
    if corpus not in known:
        raise InputError(
            f"corpus: {corpus!r} is unknown; use one of {', '.join(known)}."
        )


def options_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a corpus on the command line implies.

    Arguments
    ---------
    given : mapping
        Keys of the command line.

    Returns
    -------
    dict
        Keys that follow and are not given; empty without ``corpus``, since a
        YAML that names a corpus has its splits, too.

    Raises
    ------
    InputError
        If the corpus is unknown, or its run would go to the folder of a run
        on LibriSpeech.
    """
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
    """Options of the command line, with those that ``--corpus`` implies.

    Arguments
    ---------
    path : str
        The YAML of the system.
    overrides : str
        Keys given on the command line, as YAML.

    Returns
    -------
    str
        The same, and splits, manifests and the system's name.

    Raises
    ------
    InputError
        As :func:`options_of`; what is no YAML is left to be refused where
        options are loaded.

    Example
    -------
    >>> with_corpus("hparams/demo.yaml", "{lr: 0.1}")
    '{lr: 0.1}'
    """
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
