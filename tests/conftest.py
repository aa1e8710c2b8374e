"""Fixtures that several rooms share.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real corpora and traces beside the checkout; skips without them."""
    folder = Path(
        os.environ.get(
            "SPEECHBRAIN_EE_SHARED", REPOSITORY.parent / "shared"
        )
    )
    if not (folder / "traces").is_dir():
        pytest.skip(f"{folder} has no traces: real-data test left out")
    return folder
