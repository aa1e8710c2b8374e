"""The contribution's modules, and SpeechBrain with it merged in.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import speechbrain.lobes.models

from upstream.checkout import SHARED_PREPARATION, merged
from upstream.gates import RECIPE, TREE

PREPARE = '''"""Stands in for SpeechBrain's own data preparation."""


def prepare_librispeech(
    data_folder,
    save_folder,
    tr_splits=(),
    dev_splits=(),
    te_splits=(),
    select_n_sentences=None,
    merge_lst=(),
    merge_name=None,
    create_lexicon=False,
    skip_prep=False,
):
    """Takes what SpeechBrain's takes."""
    assert skip_prep, "the manifests exist"
'''


@pytest.fixture(scope="session")
def lobe() -> ModuleType:
    """The contributed lobe, by the name that it has in SpeechBrain."""
    folder = str(TREE / "speechbrain/lobes/models")
    if folder not in speechbrain.lobes.models.__path__:
        speechbrain.lobes.models.__path__.append(folder)
    return importlib.import_module("speechbrain.lobes.models.early_exit")


@pytest.fixture(scope="session")
def recipe(lobe: ModuleType) -> dict[str, Any]:
    """What the contributed train.py defines."""
    return runpy.run_path(str(TREE / RECIPE / "train.py"), run_name="recipe")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a SpeechBrain checkout is after the merge; links to its files."""
    root = merged(tmp_path_factory.mktemp("checkout"))
    preparation = root / SHARED_PREPARATION
    preparation.unlink()  # ours; rows have manifests
    preparation.write_text(PREPARE, "utf-8")
    # as SpeechBrain's own
    (root / "pytest.ini").write_text(
        "[pytest]\ndoctest_optionflags = ELLIPSIS\n", "utf-8"
    )
    return root
