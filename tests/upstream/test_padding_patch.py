"""The padding patch fits SpeechBrain, and its test tells before from after.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib.util
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import speechbrain
import torch
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

PATCHED = "speechbrain.lobes.models.transformer.Conformer"
FILE = Path(PATCHED.replace(".", "/")).with_suffix(".py")
INSTALLED = Path(speechbrain.__file__).parent.parent / FILE
CASES = [
    ("test_convolution_module", {"causal": False, "chunk_size": None}),
    ("test_convolution_module", {"causal": False, "chunk_size": 4}),
    ("test_convolution_module", {"causal": False, "chunk_size": 8}),
    ("test_encoder", {"attention_type": "RelPosMHAXL"}),
    ("test_encoder", {"attention_type": "regularMHA"}),
    ("test_gradients", {}),
]


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    """Patch, test and description."""
    return repository / "upstream/patches/conformer_padding"


@pytest.fixture(scope="module")
def patched(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> ModuleType:
    """SpeechBrain's Conformer with the patch applied, beside the installed."""
    if not speechbrain.__version__.startswith("1.1."):
        pytest.skip(f"the patch is for 1.1, this is {speechbrain.__version__}")
    git = shutil.which("git") or pytest.skip("git applies the patch")
    root = tmp_path_factory.mktemp("patched")
    (root / FILE).parent.mkdir(parents=True)
    shutil.copy(INSTALLED, root / FILE)
    patch = (folder / "conformer-padding.patch").resolve()
    subprocess.run([git, "apply", str(patch)], cwd=root, check=True)
    assert (root / FILE).read_bytes() != INSTALLED.read_bytes()
    spec = importlib.util.spec_from_file_location(PATCHED, root / FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as undo:
        undo.setitem(sys.modules, PATCHED, module)  # its dataclasses ask
        spec.loader.exec_module(module)
    return module


Tests = Callable[[ModuleType], dict[str, Any]]


@pytest.fixture
def tests_of(folder: Path) -> Iterator[Tests]:
    """The patch's own test file, for one Conformer or another."""
    with pytest.MonkeyPatch.context() as undo:

        def load(module: ModuleType) -> dict[str, Any]:
            undo.setitem(sys.modules, PATCHED, module)
            return runpy.run_path(str(folder / "test_conformer_padding.py"))

        yield load


@pytest.mark.parametrize(("name", "case"), CASES)
def test_before_and_after(name, case, patched, tests_of):
    """Each test fails on the installed module and passes on the patched."""
    installed = importlib.import_module(PATCHED)
    assert installed is not patched
    with pytest.raises(AssertionError):
        tests_of(installed)[name](**case)
    tests_of(patched)[name](**case)


@pytest.mark.parametrize("chunk_size", [None, 4])
@torch.no_grad()
def test_nothing_changes_without_padding(patched, chunk_size):
    """Same parameters, same output for a full batch, to the last bit."""
    installed = importlib.import_module(PATCHED)
    before = installed.ConvolutionModule(8, 5).eval()
    after = patched.ConvolutionModule(8, 5).eval()
    after.load_state_dict(before.state_dict())
    x = torch.randn(2, 13, 8)
    chunks = chunk_size and DynChunkTrainConfig(chunk_size)
    wanted = before(x, None, dynchunktrain_config=chunks)
    for mask in (None, torch.zeros(2, 13, 1, dtype=torch.bool)):
        assert torch.equal(after(x, mask, dynchunktrain_config=chunks), wanted)
