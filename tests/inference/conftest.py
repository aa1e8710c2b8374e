"""Runs and inference folders that several tests read.

Authors
 * The speechbrain-ee contributors 2026
"""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from speechbrain_ee.inference.folder.training_run import export_run
from tests.inference.runs import Run, write_run


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """The finished run of a system; only to be read."""

    @functools.cache
    def run(system: str) -> Run:
        folder = tmp_path_factory.mktemp("runs")
        options = {}
        if system == "tiny_ssl":
            pytest.importorskip("transformers")
            from tests.models.ssl_models import LAYERS, write_ssl_model

            options = {
                "source": str(write_ssl_model(folder / "backbone")),
                "exit_layers": [1, 2, LAYERS],
            }
        if system == "whisper_ctc":
            pytest.importorskip("transformers")
            from tests.models.pretrained_models import write_model

            source = write_model(folder / "backbone", "whisper")
            options = {"source": str(source), "exit_layers": [1, 2, 4]}
        return write_run(folder / system, system, **options)

    return run


@pytest.fixture(scope="session")
def exported(
    run_of: Callable[[str], Run], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The inference folder of a system; only to be read."""

    @functools.cache
    def folder(system: str) -> Path:
        target = tmp_path_factory.mktemp("folders") / system
        return export_run(run_of(system).folder, target)

    return folder


@pytest.fixture
def copied(exported: Callable[[str], Path], tmp_path: Path) -> Path:
    """An inference folder of the test's own."""
    return Path(shutil.copytree(exported("digits"), tmp_path / "copied"))
