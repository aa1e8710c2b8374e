"""What an earlier version wrote is read, and gives what it gave then.

``tests/fixtures/landed.tar.xz`` holds two small trained systems as version
0.1.0 wrote them: an output folder (without manifests), the
inference folders of a CTC and of a CTC-attention model, ONNX graphs, four
recordings, and in ``expected.json`` what that version made of them.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import tarfile
from pathlib import Path

import pytest
import soundfile

from speechbrain_ee.__main__ import main
from speechbrain_ee.inference.asr import EarlyExitASR

ARCHIVE = Path(__file__).parent / "fixtures" / "landed.tar.xz"


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "landed"


@pytest.fixture(scope="module")
def expected(landed: Path) -> dict:
    """Texts and exits by folder and policy; rows of the report."""
    return json.loads((landed / "expected.json").read_text("utf-8"))


def wavs(landed: Path) -> list[str]:
    """The recordings, in the order of ``expected``."""
    return sorted(str(path) for path in (landed / "wav").iterdir())


@pytest.mark.parametrize("name", ["model", "aed"])
def test_inference_folders(landed, expected, name):
    """Every policy and budget: the same texts at the same exits."""
    asr = EarlyExitASR.from_hparams(source=str(landed / name))
    for policy, then in expected[name].items():
        now = asr.transcribe(wavs(landed), policy=policy)
        assert [[each.text, each.exit] for each in now] == then, policy


def test_onnx_graphs(landed, expected):
    """The same for the host that needs no PyTorch."""
    pytest.importorskip("onnxruntime")
    from speechbrain_ee.inference.onnx.host import OnnxRecogniser

    host = OnnxRecogniser(landed / "onnx")
    waves = [soundfile.read(path, dtype="float32")[0] for path in wavs(landed)]
    for policy, then in expected["onnx"].items():
        now = host.transcribe(waves, policy)
        assert [[each.text, each.exit] for each in now] == then, policy


def test_output_folder(landed, expected, tmp_path):
    """Its checkpoint is exported: the same texts at every exit."""
    main(["export", str(landed / "run"), "--out", str(tmp_path / "m")])
    asr = EarlyExitASR.from_hparams(source=str(tmp_path / "m"))
    for exit in "123":
        now = asr.transcribe(wavs(landed), policy=exit)
        assert [[e.text, e.exit] for e in now] == expected["model"][exit]


def test_traces_policies_and_selector(landed, expected, tmp_path):
    """A report of them says the same of exits and oracle."""
    main(
        [
            "report",
            f"--trace={landed / 'run/traces/test-clean.jsonl.gz'}",
            f"--policy={landed / 'run/save/exit_policy.ltt.yaml'}",
            f"--policy={landed / 'run/save/exit_policy.naive.yaml'}",
            f"--out={tmp_path}",
        ]
    )
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    found = report["sets"]["test-clean"]
    for now, then in zip(found["exits"], expected["exits"], strict=True):
        assert {key: now[key] for key in then} == pytest.approx(then)
    oracle = {key: found["oracle_best"][key] for key in expected["oracle"]}
    assert oracle == pytest.approx(expected["oracle"])
    assert len(found["policies"]) >= 2
