"""The estimate of training memory, against counts by hand and the cost model.

Axes: B utterances, T frames, N rows, V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_ee.evaluation.cost import CostModel
from tests.test_benchmarks import load

SAMPLES, TOKENS = 32000, 12


@pytest.fixture(scope="module")
def counting(repository: Path) -> ModuleType:
    """The module benchmarks/training_step.py."""
    return load(repository, "training_step")


@pytest.fixture
def ssl(tmp_path: Path) -> nn.Module:
    """A tiny WavLM, in training mode."""
    models = pytest.importorskip("tests.models.ssl_models")
    folder = models.write_ssl_model(tmp_path, "wavlm", hidden_size=32)
    return models.ssl_model(folder).train()


def test_bytes_and_operations_by_hand(counting: ModuleType) -> None:
    """Real tensors; the hidden states are kept once, weights not at all."""
    model = nn.Sequential(nn.Linear(80, 160), nn.ReLU(), nn.Linear(160, 40))
    inputs = torch.rand(100, 80)
    step = counting.observe(lambda: model(inputs), list(model.parameters()))
    fp32 = 4
    size = {width: 100 * width * fp32 for width in (40, 80, 160)}
    blocks = {width: -(-each // 512) * 512 for width, each in size.items()}
    assert step.saved_bytes == blocks[80] + blocks[160]
    # The first layer's output goes when ReLU has read it.
    assert step.peak_bytes == 2 * blocks[160]
    first, second = 2 * 100 * 80 * 160, 2 * 100 * 160 * 40
    assert step.forward_flops == first + second
    # Nothing asks for the gradient of the input.
    assert step.step_flops == 2 * first + 3 * second


def test_ctc_keeps_what_the_loss_of_pytorch_keeps(
    counting: ModuleType,
) -> None:
    """Six rows of fifty frames, on a CPU."""
    log_probs = torch.randn(50, 6, 9, requires_grad=True)
    targets = torch.ones(6, TOKENS, dtype=torch.long)
    frames, counts = torch.full((6,), 50), torch.full((6,), TOKENS)

    def real() -> torch.Tensor:
        return F.ctc_loss(log_probs, targets, frames, counts, reduction="none")

    ours = counting.observe(
        lambda: counting.CTCMemory.apply(log_probs, TOKENS), []
    )
    theirs = counting.observe(real, [])
    # The loss keeps targets, too.
    assert 0 <= theirs.saved_bytes - ours.saved_bytes <= 2048
    assert ours.saved_bytes > 4 * 6 * 50 * (2 * TOKENS + 1)


def test_operations_are_those_of_the_cost_model(
    counting: ModuleType, ssl: nn.Module
) -> None:
    """Two per multiply-accumulate; three passes where all is trained."""
    macs = CostModel(ssl).macs(SAMPLES)[-1]
    step = counting.forward_step(ssl, 3, SAMPLES, TOKENS)
    assert step.forward_flops == pytest.approx(2 * 3 * macs, rel=0.02)
    ratio = step.step_flops / step.forward_flops
    assert 2.8 < ratio <= 3.0


def test_frozen_backbone_keeps_what_its_heads_read(
    counting: ModuleType, ssl: nn.Module
) -> None:
    """Far less than full fine-tuning, and hardly more than one pass."""
    everything = counting.forward_step(ssl, 2, SAMPLES, TOKENS)
    ssl.encoder.requires_grad_(False)
    heads = counting.forward_step(ssl, 2, SAMPLES, TOKENS)
    assert heads.saved_bytes < everything.saved_bytes / 4
    assert heads.forward_flops == everything.forward_flops
    assert heads.step_flops < 1.1 * heads.forward_flops


def test_stored_estimates_add_up(repository: Path) -> None:
    """Parameters, gradients, moments, activations; and published sizes."""
    path = repository / "benchmarks/results/training_memory.json"
    result = json.loads(path.read_text("utf-8"))
    assumed, systems = result["assumed"], result["systems"]
    assert "not measured" in result["kind"]
    for row in systems.values():
        parameters = 4 * row["parameters"] + 12 * row["trained_parameters"]
        static = parameters / 2**30
        for step in row["steps"].values():
            alive = max(step["saved_gib"], step["forward_peak_gib"])
            total = static + alive * assumed["margin_on_activations"]
            total += assumed["context_gib"]
            assert step["total_gib"] == pytest.approx(total, abs=0.1)
        typical = row["steps"]["typical.bf16"]["flops_per_audio_hour"]
        flops = typical * row["audio_hours"] * row["epochs"]
        for name, peak in assumed["peak_tflops"].items():
            hours = flops / (assumed["share_of_peak"] * peak * 1e12 * 3600)
            assert row["gpu_hours"][name] == pytest.approx(hours, abs=0.1)
    published_m = {"wav2vec2_ctc": 95, "hubert_large_frozen": 317}
    for name, millions in published_m.items():
        count = systems[name]["parameters"] / 1e6
        # hubert_large_frozen has the bodies of fifteen heads besides
        assert millions - 2 < count < millions * 1.6
