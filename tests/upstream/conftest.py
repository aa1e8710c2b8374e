"""The assembled tree, and SpeechBrain with it merged in.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import speechbrain

from upstream.assemble import Assembled, assemble
from upstream.layout import PREPARATION

INSTALLED = Path(speechbrain.__file__).parent
# SpeechBrain's preparation is not installed with it; of ours, and of this
# stand-in for its own, train.py asks the same.
PREPARE = '''"""Stand-in for SpeechBrain's own data preparation."""


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
PYTEST_INI = "[pytest]\ndoctest_optionflags = ELLIPSIS\n"  # as SpeechBrain's
TIMEOUT_S = 1800  # only against hanging: the machine may be busy


@pytest.fixture(scope="session")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> Assembled:
    """The tree, formatted; only to be read."""
    return assemble(tmp_path_factory.mktemp("contribution"))


@pytest.fixture(scope="session")
def checkout(
    assembled: Assembled, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a SpeechBrain checkout is after the merge; links to its files."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(
        INSTALLED,
        root / "speechbrain",
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copytree(assembled.root, root, symlinks=True, dirs_exist_ok=True)
    (root / "recipes/LibriSpeech" / PREPARATION).write_text(PREPARE, "utf-8")
    (root / "pytest.ini").write_text(PYTEST_INI, "utf-8")
    (root / "conftest.py").write_text('"""As in SpeechBrain."""\n', "utf-8")
    return root


@pytest.fixture(scope="session")
def run_there(
    checkout: Path,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in the checkout, with its packages and no others of ours."""

    def run(
        *arguments: object, path: Path = checkout, cwd: Path = checkout
    ) -> subprocess.CompletedProcess[str]:
        environment = dict(
            os.environ,
            OMP_NUM_THREADS="1",
            MPLBACKEND="agg",
            CUDA_VISIBLE_DEVICES="",
            HF_HUB_OFFLINE="1",
            PYTHONPATH=os.pathsep.join(
                dict.fromkeys([str(path), str(checkout)])
            ),
        )
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    return run
