"""Graphs say what PyTorch says: any length, any batch, any attention.

Axes: B utterances, T frames, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

# ruff: noqa: E402 - the extra comes before what needs it
pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from speechbrain.nnet.attention import PrecomputedRoPESinusoids

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.criteria import measure_all
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.inference.onnx.export import (
    MEASURES,
    export_graphs,
    export_onnx,
    manifest,
)
from speechbrain_ee.inference.onnx.graphs import (
    MatrixSTFT,
    RotaryTables,
    StartGraph,
)
from speechbrain_ee.inference.onnx.manifest import (
    MANIFEST_FILE,
    read_manifest,
    write_manifest,
)
from tests.helpers import noise, padded, shaken, tiny_model

# One of each way that positions reach the layers, and a head that attends.
KINDS = {
    "rotary": {"attention_type": "RoPEMHA"},
    "relative": {"attention_type": "RelPosMHAXL"},
    "absolute": {"attention_type": "regularMHA"},
}
BATCHES = ((16000,), (5000, 12000, 701), (90000, 3), (1,))
PARITY = 1e-4


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A model and its graphs."""
    model = shaken(tiny_model(**KINDS[request.param]), by=0.1)
    folder = tmp_path_factory.mktemp(request.param)
    export_graphs(model, folder)
    names = ("start.onnx", "exit_01.onnx", "exit_02.onnx")
    sessions = [onnxruntime.InferenceSession(folder / name) for name in names]
    return SimpleNamespace(model=model, folder=folder, sessions=sessions)


def through(sessions, lengths):
    """Frames, and what every exit puts out by name, as a host sees it."""
    wavs_BS, _ = padded([noise(n, seed=n) for n in lengths])
    start, *segments = sessions
    inputs = {"wavs": wavs_BS.numpy(), "samples": np.array(lengths)}
    hidden, frames_B, *positions = start.run(None, inputs)
    found = []
    for segment in segments:
        inputs = {"hidden": hidden, "lengths": frames_B}
        inputs |= dict(zip(["positions"], positions))
        names = [each.name for each in segment.get_outputs()]
        found.append(dict(zip(names, segment.run(None, inputs))))
        hidden = found[-1]["out"]
    return frames_B, found


@pytest.mark.parametrize("lengths", BATCHES)
def test_log_probabilities_and_measures_are_those_of_pytorch(made, lengths):
    wavs, lens = padded([noise(n, seed=n) for n in lengths])
    with torch.no_grad():
        outputs = made.model(wavs, lens)
    frames_B, found = through(made.sessions, lengths)
    for output, said in zip(outputs, found):
        assert frames_B.tolist() == output.lengths_B.tolist()
        for row, frames in enumerate(frames_B):
            np.testing.assert_allclose(
                said["log_probs"][row, :frames],
                output.log_probs_BTV[row, :frames],
                atol=PARITY,
            )
        for name, raw in measure_all(ExitView(output), MEASURES).items():
            np.testing.assert_allclose(said[name], raw, atol=PARITY)


def test_an_utterance_does_not_depend_on_its_batch(made):
    lengths = (4000, 16000, 9000)
    frames_B, together = through(made.sessions, lengths)
    for row, length in enumerate(lengths):
        _, alone = through(made.sessions, (length,))
        for one, all_of_them in zip(alone, together):
            np.testing.assert_allclose(
                one["log_probs"][0],
                all_of_them["log_probs"][row, : frames_B[row]],
                atol=PARITY,
            )


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    model = tiny_model(attention_type="RoPEMHA")
    names = list(model.state_dict())
    wavs, lens = padded([noise(8000)])
    with torch.no_grad():
        before = model(wavs, lens)[-1].log_probs_BTV
        export_graphs(model, tmp_path)
        after = model(wavs, lens)[-1].log_probs_BTV
    assert torch.equal(before, after)
    assert list(model.state_dict()) == names


def test_matrix_stft_is_the_fourier_transform():
    stft = tiny_model().encoder.features.compute_features.compute_STFT
    wavs = torch.stack([noise(7777, 1), noise(7777, 2)])
    wanted, got = stft(wavs), MatrixSTFT(stft)(wavs)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames", (1, 2, 64, 3000))
def test_tables_are_those_of_speechbrain(frames):
    wanted = PrecomputedRoPESinusoids(
        frames, 8, torch.float32, torch.device("cpu")
    )
    cosines, sines = RotaryTables(8)(frames)
    torch.testing.assert_close(cosines, wanted.cosines)
    torch.testing.assert_close(sines, wanted.sines)


def test_manifest_tells_the_costs(tmp_path):
    model = tiny_model(attention_type="RoPEMHA")
    told = manifest(model, "tiny", 16000)
    write_manifest(tmp_path, told)
    assert read_manifest(tmp_path) == told
    cost = CostModel(model)
    for samples in (0, 1, 159, 160, 799, 16000, 54321, 700_000):
        wanted = cost.macs(samples)
        frames = cost.frames(samples)
        for exit, macs in enumerate(wanted, start=1):
            reads = tuple(range(1, exit + 1))
            assert told.macs(samples, frames, reads) == macs


@pytest.mark.parametrize(
    ("old", "new"),
    (
        ('"positions": "rotary"', '"positions": "none of these"'),
        ('"blank_index": 0', '"blank_index": 99'),
        ('"frame_s"', '"frames"'),
        ("early-exit-onnx/1", "early-exit-onnx/9"),
        ('"sample_rate": 16000', '"sample_rate": "16000"'),
        ("{", "{{"),
    ),
)
def test_a_damaged_manifest_is_refused(tmp_path, old, new):
    model = tiny_model(attention_type="RoPEMHA")
    write_manifest(tmp_path, manifest(model, "tiny", 16000))
    path = tmp_path / MANIFEST_FILE
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(InputError, match=MANIFEST_FILE):
        read_manifest(tmp_path)


def test_other_encoders_are_refused():
    other = SimpleNamespace(encoder=torch.nn.Identity())
    with pytest.raises(InputError, match="Identity"):
        StartGraph(other)


@pytest.mark.parametrize("missing", ("onnx", "onnxruntime"))
def test_without_the_extra_it_says_so(tmp_path, monkeypatch, missing):
    """Before anything is looked at or written."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"speechbrain-ee\[onnx\]"):
        export_onnx(None, tmp_path / "graphs")
    assert not any(tmp_path.iterdir())


def test_graphs_say_where_they_come_from(made):
    import onnx

    graph = onnx.load(Path(made.folder) / "exit_01.onnx")
    assert graph.producer_name == "speechbrain-ee"
    # No path of the machine that exported.
    assert str(Path.cwd()) not in str(graph)
