"""Fixtures that several rooms share.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before the first import of a library that would ask for a model's files.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import speechbrain  # noqa: F401 registers its placeholders
from speechbrain.utils.importutils import LazyModule

REPOSITORY = Path(__file__).resolve().parent.parent

# hypothesis asks every loaded module for its file; SpeechBrain's placeholders
# answer by importing packages that may not be installed (k2, flair).
for module in list(sys.modules.values()):
    if isinstance(module, LazyModule):
        vars(module).setdefault("__file__", None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real corpora and traces beside the checkout; skips without them."""
    folder = Path(
        os.environ.get("SPEECHBRAIN_EE_SHARED", REPOSITORY.parent / "shared")
    )
    if not (folder / "traces").is_dir():
        pytest.skip(f"{folder} has no traces: real-data test left out")
    return folder


@pytest.fixture(autouse=True, scope="module")
def own_seed() -> Iterator[None]:
    """No test hands the seed on that a YAML sets for the whole process."""
    with pytest.MonkeyPatch.context() as patch:
        # whatever it is set to, it becomes what it was
        patch.setenv("SB_GLOBAL_SEED", "0")
        patch.delenv("SB_GLOBAL_SEED")
        yield
