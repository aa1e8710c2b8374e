"""The layer-wise SSL encoder is the encoder of transformers.

Protects: equality at every layer for three families and two styles; exits
equal to truncated models bit for bit; an utterance alone equal to the same in
any batch, rows selected on the way or not; masking, layer-drop and half
precision of the file left aside in training; models loaded whole or refused.

Axes: B utterances, T frames, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.models import pretrained
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.models.pretrained import SSLEncoder, load_backbone
from speechbrain_ee.training.losses import ctc_exit_losses
from tests.helpers import VOCAB, noise, padded, valid
from tests.models.ssl_models import (
    FIRST,
    HOP,
    LAYERS,
    MODELS,
    check_truncations,
    close,
    original,
    original_states,
    prepared,
    ssl_model,
    write_ssl_model,
)

EVERY = tuple(range(1, LAYERS + 1))


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    family, style = request.param
    target = tmp_path_factory.mktemp("-".join(request.param))
    return write_ssl_model(target, family, style)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ssl_model(tmp_path_factory.mktemp("wav2vec2"))


@torch.no_grad()
def test_every_row_of_a_batch_of_three_equals_transformers(
    folder: Path,
) -> None:
    """A layer that returns a tensor is not taken for a tuple's first entry."""
    wavs = [noise(7000, 1), noise(6200, 2), noise(4100, 3)]
    encoder = SSLEncoder(str(folder), EVERY).eval()
    states = encoder(*padded(wavs))
    for row, wav in enumerate(wavs):
        *expected, last = original_states(folder, wav)
        for state, expected_BTD in zip(states, expected, strict=True):
            frames = int(state.lengths_B[row])
            assert frames == expected_BTD.shape[1]
            own_BTD = state.hidden_BTD[row : row + 1, :frames]
            assert close(own_BTD, expected_BTD)
        assert close(encoder.final_norm(own_BTD), last)


@torch.no_grad()
def test_exit_equals_truncated_bit_for_bit(folder: Path) -> None:
    """The model left at exit k and the model that ends there."""
    check_truncations(ssl_model(folder))


@torch.no_grad()
def test_alone_equals_batch(folder: Path) -> None:
    """Any order, any length beside it, any padding, at every exit."""
    model = ssl_model(folder)
    wavs = [noise(7000, 1), noise(401, 2), noise(9123, 3), noise(4000, 4)]
    junk = noise(4 * 12000, 9).view(4, -1)
    for order, extra, fill in (
        ([0, 1, 2, 3], 0, 0.0),
        ([2, 3, 0, 1], 777, junk),
        ([1, 0], 5, float("nan")),
    ):
        if isinstance(fill, Tensor):
            fill = fill[: len(order)]
        batch = model(*padded([wavs[n] for n in order], extra, fill))
        for row, n in enumerate(order):
            alone = model(*padded([wavs[n]]))
            for one, many in zip(alone, batch):
                assert int(one.lengths_B) == int(many.lengths_B[row])
                assert close(valid(one), valid(many, row))


@torch.no_grad()
def test_alone_equals_batch_with_rows_leaving(folder: Path) -> None:
    """The longest leaves at the first exit, another at the second."""
    model = ssl_model(folder)
    wavs = [noise(9123, 3), noise(4000, 4), noise(7000, 1)]
    state = model.start(*padded(wavs, extra=100))
    alone = [model(*padded([wav])) for wav in wavs]
    stay = [[0, 1, 2], [1, 2], [1]]
    for exit, rows in enumerate(stay, start=1):
        keep_B = torch.isin(state.rows_B, torch.tensor(rows))
        state, output = model.step(state.select(keep_B))
        assert state.rows_B.tolist() == rows
        for row, n in enumerate(rows):
            expected = valid(alone[n][exit - 1])
            assert close(valid(output, row), expected)
        assert output.log_probs_BTV.shape[1] == int(output.lengths_B.max())


@pytest.mark.parametrize(
    "samples", [1, 2, FIRST - 1, FIRST, FIRST + HOP - 1, FIRST + HOP]
)
@torch.no_grad()
def test_shortest_audio(folder: Path, samples: int) -> None:
    """At least one frame, finite, and the same alone and in a batch."""
    model = ssl_model(folder)
    wav = noise(samples + 400, 5)[:samples]
    alone = model(*padded([wav]))
    batch = model(*padded([noise(3000, 1), wav]))
    frames = 2 if samples >= FIRST + HOP else 1
    assert model.encoder.frames(samples) == frames
    for one, many in zip(alone, batch):
        assert one.lengths_B.tolist() == [frames]
        assert torch.isfinite(one.log_probs_BTV).all()
        assert close(valid(one), valid(many, 1))


def test_frames_are_those_of_the_convolutions(one_folder: Path) -> None:
    """Number and tensor, counted by running them."""
    encoder = SSLEncoder(str(one_folder), [1])
    assert encoder.shortest == FIRST
    samples = [*range(FIRST, FIRST + 2 * HOP, 37), 16000]
    counted = [encoder.convolutions(torch.rand(1, n)).shape[2] for n in samples]
    assert [encoder.frames(n) for n in samples] == counted
    assert encoder.frames(torch.tensor(samples)).tolist() == counted
    assert [encoder.frames(n) for n in (0, 1, FIRST - 1)] == [1, 1, 1]


@pytest.mark.parametrize("normalise", [True, False])
@torch.no_grad()
def test_audio_is_prepared_as_by_the_extractor(
    tmp_path: Path, normalise: bool
) -> None:
    """Over the true length, though the batch is longer; or not at all."""
    write_ssl_model(tmp_path, style="large", normalise=normalise)
    encoder = SSLEncoder(str(tmp_path), [1])
    assert encoder.normalise is normalise
    seen = []
    encoder.convolutions.register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    wavs = [3 * noise(5000, 1) + 0.5, noise(3000, 2)]
    encoder.start(*padded(wavs, extra=50, fill=0.7))
    for row, wav in zip(seen[0], wavs):
        assert close(row[: len(wav)], prepared(tmp_path, wav)[0])
        assert (row[len(wav) :] == 0).all()


@pytest.mark.parametrize("exit_layers", [[5], [2, 4, 6]])
def test_exits_beyond_the_model(
    one_folder: Path, exit_layers: list[int]
) -> None:
    """The message has the depth of the model."""
    with pytest.raises(InputError, match=r"exit_layers: .* between 1 and 4"):
        SSLEncoder(str(one_folder), exit_layers)
    with pytest.raises(InputError, match="exit_layers"):
        SSLEncoder(str(one_folder), ["2"])


def test_sample_rate_of_another_kind_of_audio(one_folder: Path) -> None:
    """Audio of 8 kHz would pass for slow speech."""
    SSLEncoder(str(one_folder), [4], sample_rate=16000)
    with pytest.raises(InputError, match="^sample_rate: 8000 Hz.* to 16000"):
        SSLEncoder(str(one_folder), [4], sample_rate=8000)


def test_training_mode_masks_and_drops_nothing_by_itself(
    folder: Path,
) -> None:
    """Masking and layer-drop of the file are off: training == evaluation."""
    model = ssl_model(folder)
    batch = padded([noise(7000, 1), noise(4100, 2)])
    expected = model(*batch)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    for one, other in zip(expected, model(*batch)):
        assert close(valid(one), valid(other))


def trained(model: EarlyExitModel) -> set[str]:
    model.train().zero_grad()
    outputs = model(*padded([noise(7000, 1), noise(5000, 2)]))
    tokens_BS = torch.tensor([[1, 2, 3], [4, 5, 0]])
    losses_E = ctc_exit_losses(outputs, tokens_BS, torch.tensor([3, 2]))
    losses_E.sum().backward()
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }


def test_gradients_reach_what_is_run(folder: Path) -> None:
    """Everything but the norm above the last layer of large models."""
    model = ssl_model(folder)
    learning = {
        name for name, each in model.named_parameters() if each.requires_grad
    }
    # The bias of keys moves all scores of a query alike: it learns nothing.
    idle = {name for name in learning if name.endswith("k_proj.bias")}
    assert trained(model) | idle == learning
    frozen = {name for name, _ in model.named_parameters()} - learning
    assert all(name.startswith("encoder.final_norm") for name in frozen)


def test_autocast_runs(folder: Path) -> None:
    """bf16 on a CPU, forward and backward, near to fp32."""
    model = ssl_model(folder)
    batch = padded([noise(7000, 1), noise(4100, 2)])
    expected = model(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(*batch)
    for one, other in zip(expected, outputs):
        assert other.log_probs_BTV.dtype == torch.float32
        assert other.log_probs_BTV.shape[-1] == VOCAB
        assert close(valid(one, 1), valid(other, 1), 0.5)
    outputs[-1].log_probs_BTV.sum().backward()


WEIGHTS = "model.safetensors"


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    return write_ssl_model(tmp_path / "wav2vec2")


def refusal(source: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(str(source))
    message = str(caught.value)
    assert message.startswith("source: ") and str(source) in message
    assert "\n" not in message and "; " in message
    return message


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", WEIGHTS]
)
def test_missing_file(spoilt: Path, name: str) -> None:
    """The message names the file that a spoilt lacks."""
    (spoilt / name).unlink()
    assert name in refusal(spoilt)
    assert "save_pretrained()" in refusal(spoilt)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_unreadable_json(spoilt: Path, name: str, content: str) -> None:
    """Cut off, not an object, not UTF-8."""
    (spoilt / name).write_text(content, errors="surrogateescape")
    assert "fetch it again" in refusal(spoilt)


@pytest.mark.parametrize("size", [0, 5, 5000])
def test_truncated_weights(spoilt: Path, size: int) -> None:
    """A download that broke off."""
    path = spoilt / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    assert "fetch it again" in refusal(spoilt)


def test_weights_that_hold_code_are_not_run(spoilt: Path) -> None:
    """A pickle of something else is refused, with no advice to trust it."""
    (spoilt / WEIGHTS).unlink()
    torch.save({"code": Path}, spoilt / "pytorch_model.bin")
    assert "weights_only" not in refusal(spoilt)


def test_tensors_of_another_shape(spoilt: Path) -> None:
    """A config of a wider feed-forward: three tensors in 4 layers."""
    configure(spoilt, intermediate_size=30)
    message = refusal(spoilt)
    assert "incomplete: 12 of" in message and "intermediate_dense" in message


@pytest.mark.parametrize("changes", [{"hidden_size": "x"}, {"hidden_size": 15}])
def test_impossible_config(spoilt: Path, changes: dict[str, Any]) -> None:
    """Values that no model can be built from."""
    configure(spoilt, **changes)
    assert "cannot be loaded" in refusal(spoilt)


@pytest.mark.parametrize("kind", ["bert", "speech_to_text"])
def test_other_architectures(spoilt: Path, kind: str) -> None:
    """Known to transformers or not: the message lists what is known here."""
    configure(spoilt, model_type=kind)
    message = refusal(spoilt)
    assert f"of type {kind!r}" in message
    assert "wav2vec2, hubert, wavlm" in message and "whisper" in message


def test_without_transformers(
    spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra to install is named."""

    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(pretrained.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"speechbrain-ee\[ssl\]"):
        load_backbone(str(spoilt))


@pytest.mark.parametrize("source", ["./missing", "/no/folder", "~/no", "a/b/c"])
def test_missing_folder(source: str) -> None:
    """What can only be a folder is not looked for on the hub."""
    assert "does not exist" in refusal(source)


@pytest.mark.parametrize(
    "source", ["nobody/no-such-model", "no-such-model", "not a name"]
)
def test_hub_out_of_reach(source: str, tmp_path: Path) -> None:
    """Offline it is known at once; the way out is a folder."""
    began_s = time.monotonic()
    message = refusal(source)
    assert time.monotonic() - began_s < 5
    assert "hub" in message and "give its folder" in message
    with pytest.raises(InputError, match="hub"):
        load_backbone(source, save_path=str(tmp_path))


@pytest.mark.parametrize("model", MODELS, ids="-".join)
def test_checkpoints_as_the_hub_has_them(
    tmp_path: Path, model: tuple[str, str]
) -> None:
    """Prefixed names, old weight norm, heads beside."""
    folder = write_ssl_model(tmp_path, *model)
    weights = original(folder).state_dict()
    weights.pop("masked_spec_embed", None)
    norm = "parametrizations.weight.original"
    renamed = {
        f"{model[0]}.{name}".replace(f"{norm}0", "weight_g").replace(
            f"{norm}1", "weight_v"
        ): value.clone()
        for name, value in weights.items()
    }
    renamed["lm_head.weight"] = torch.rand(3, 16)
    (folder / WEIGHTS).unlink()
    torch.save(renamed, folder / "pytorch_model.bin")
    loaded = load_backbone(str(folder)).model.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_half_precision_files_are_trained_in_single(spoilt: Path) -> None:
    """Whatever the files hold."""
    original(spoilt).half().save_pretrained(spoilt)
    model = load_backbone(str(spoilt)).model
    assert {each.dtype for each in model.parameters()} == {torch.float32}


def untrained(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return load_backbone(str(folder), pretrained=False).model.state_dict()


def test_random_weights_by_seed(spoilt: Path) -> None:
    """Names and shapes of the file's, values of the seed; no file is read."""
    trained = load_backbone(str(spoilt)).model.state_dict()
    (spoilt / WEIGHTS).unlink()
    one, same, other = (untrained(spoilt, seed) for seed in (1, 1, 2))
    shapes = {name: value.shape for name, value in trained.items()}
    assert {name: value.shape for name, value in one.items()} == shapes
    assert all(torch.equal(one[name], same[name]) for name in one)
    matrices = [name for name in one if name.endswith("proj.weight")]
    assert len(matrices) >= 16
    for name in matrices:
        assert not torch.equal(one[name], other[name]), name
        assert not torch.equal(one[name], trained[name]), name
