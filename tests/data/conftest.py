"""A small corpus, and where its manifests go.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest

from tests.data.corpora import add


@pytest.fixture
def corpus(tmp_path):
    """train: every format, two speakers; dev and test: one utterance."""
    root = tmp_path / "corpus"
    for number, suffix in enumerate(["wav", "flac", "opus", "ogg"]):
        add(root / "train", f"12-3-000{number}", "A B", 1 + number, suffix)
    add(root / "train", "9-1-0000", "C")
    add(root / "dev", "7-1-0000", "D")
    add(root / "test", "8-1-0000", "E")
    return root


@pytest.fixture
def save(tmp_path):
    """Where the manifests go."""
    return tmp_path / "save"
