"""The closed-form cost of a pre-trained encoder equals what is counted.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import torch
from torch import nn

from speechbrain_ee.evaluation.cost import (
    CostModel,
    convolution_macs,
    parameter_count,
    start_cost,
)
from speechbrain_ee.models import ssl
from speechbrain_ee.models.heads import CTCHeads
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.ssl_loading import Backbone
from tests.evaluation.test_cost import counted_macs
from tests.helpers import noise, padded
from tests.models.ssl_models import (
    MODELS,
    ssl_model,
    transformers,
    write_ssl_model,
)

EXITS = (1, 2, 4)


@pytest.mark.parametrize("kernel", [16, 15])
@pytest.mark.parametrize("name", MODELS, ids="-".join)
def test_closed_form_equals_count(
    tmp_path: Path, name: tuple[str, str], kernel: int
) -> None:
    """Every exit; even and odd kernels of the positions; any length."""
    folder = write_ssl_model(tmp_path, *name, num_conv_pos_embeddings=kernel)
    model = ssl_model(folder, EXITS)
    cost = CostModel(model)
    for samples in (100, 400, 719, 16037):
        predicted = cost.macs(samples)
        for exits in (1, 2, 3):
            counted = counted_macs(model.truncated(exits), samples)
            assert predicted[exits - 1] == counted
        states = model.encoder(*padded([noise(samples, 1)]))
        assert cost.frames(samples) == states[0].hidden_BTD.shape[1]


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("method", ["signal", "convolution", "pooling"])
def test_down_sampling(tmp_path: Path, method: str, factor: int) -> None:
    """Counted with its filter; a fraction of the cost without it."""
    folder = write_ssl_model(tmp_path)
    options = {"method": method, "factor": factor}
    model = ssl_model(folder, EXITS, downsampling=options)
    cost = CostModel(model)
    plain = CostModel(ssl_model(folder, EXITS))
    for samples in (20, 1439, 7200, 7201):
        counted = counted_macs(model, samples)
        assert cost.macs(samples)[-1] == counted
        states = model.encoder(*padded([noise(samples, 1)]))
        assert cost.frames(samples) == states[0].hidden_BTD.shape[1]
    macs = cost.macs(48000)[-1] - cost.start.downsampling(48000)[0]
    assert macs < plain.macs(48000)[-1] / factor
    learned = 81 + 1 if method == "convolution" else 0
    for one, other in zip(cost.parameters(), plain.parameters()):
        assert one - other == learned


@pytest.mark.parametrize(
    "head", ["two_layer", "feed_forward", "self_attention"]
)
@pytest.mark.parametrize("tied", ["separate", "projection", "all"])
def test_heads_with_bodies(tmp_path: Path, head: str, tied: str) -> None:
    """A body is run, and counted, at every exit that is passed."""
    model = ssl_model(write_ssl_model(tmp_path), EXITS)
    linear = CostModel(model).parameters()
    model.heads = CTCHeads(
        EXITS, 16, 7, tied=tied, head=head, width=8, nhead=2
    ).eval()
    cost = CostModel(model)
    for exits in (1, 2, 3):
        counted = counted_macs(model.truncated(exits), 9000)
        assert cost.macs(9000)[exits - 1] == counted
        body = parameter_count(model.heads.body(exits))
        change = body + 8 * 7 + 7 - (16 * 7 + 7)
        assert cost.parameters()[exits - 1] - linear[exits - 1] == change


@pytest.mark.parametrize("name", MODELS, ids="-".join)
def test_parameters_are_those_that_are_run(
    tmp_path: Path, name: tuple[str, str]
) -> None:
    """At every exit those that a loss at that exit alone reaches."""
    model = ssl_model(write_ssl_model(tmp_path, *name), EXITS)
    parameters = CostModel(model).parameters()
    for exit in (1, 2, 3):
        part = model.truncated(exit)
        part.zero_grad()
        output = part(*padded([noise(3000, 1)]))[-1]
        output.log_probs_BTV.square().sum().backward()
        reached = sum(
            each.numel() for each in part.parameters() if each.grad is not None
        )
        assert parameters[exit - 1] == reached


def test_unknown_kinds_are_not_guessed() -> None:
    """An encoder without a cost function is refused by its name."""
    encoder = LayerwiseEncoder([nn.Identity()], [1])
    with pytest.raises(TypeError, match="LayerwiseEncoder"):
        start_cost(encoder)


def test_published_size_of_a_base_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """wav2vec2-base: 94.4 million parameters; a third of the MACs in the CNN.

    The weights of the model are shapes alone, on PyTorch's meta device.
    """
    with torch.device("meta"):
        config = transformers.Wav2Vec2Config(layerdrop=0.0)
        model = transformers.AutoModel.from_config(config)
    backbone = Backbone(model, normalise=True, sample_rate=16000)
    monkeypatch.setattr(ssl, "load_backbone", lambda *_: backbone)
    cost = CostModel(ssl_model("base", (12,)))
    # The embedding of masked frames is not loaded; the head has 7 tokens.
    loaded = cost.parameters()[0] - 2 * 768 - (768 * 7 + 7)
    assert loaded + 768 == 94_371_712
    samples = frames = 10 * 16000
    macs = 0
    for layer in cost.encoder.convolutions.conv_layers:
        counted, frames = convolution_macs(layer.conv, frames)
        macs += counted
    assert round(cost.macs(samples)[0] / 1e9) == 74
    assert round(100 * macs / cost.macs(samples)[0]) == 33
