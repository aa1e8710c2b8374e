"""The layer-wise SSL encoder is the encoder of transformers.

Protects: equality at every layer for three families and two styles; exits
equal to truncated models bit for bit; an utterance alone equal to the same in
any batch, rows selected on the way or not.

Axes: B utterances, T frames, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.ssl import SSLEncoder
from tests.helpers import noise, padded, shaken, valid
from tests.models.ssl_models import (
    FIRST,
    HOP,
    LAYERS,
    MODELS,
    close,
    original,
    original_states,
    prepared,
    ssl_model,
    transformers,
    write_ssl_model,
)

EVERY = tuple(range(1, LAYERS + 1))


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder of every family and style."""
    family, style = request.param
    target = tmp_path_factory.mktemp("-".join(request.param))
    return write_ssl_model(target, family, style)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single model folder, where the family does not matter."""
    return write_ssl_model(tmp_path_factory.mktemp("wav2vec2"))


@pytest.fixture(scope="module")
def wavlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with position biases."""
    return write_ssl_model(tmp_path_factory.mktemp("wavlm"), "wavlm")


@torch.no_grad()
def test_every_layer_equals_transformers(folder: Path) -> None:
    """Layer by layer, and behind the norm that large models end with."""
    wav = noise(7000, 1)
    *expected, last = original_states(folder, wav)
    encoder = SSLEncoder(str(folder), EVERY).eval()
    states = encoder(*padded([wav]))
    assert [state.depth for state in states] == list(EVERY)
    for state, expected_BTD in zip(states, expected, strict=True):
        assert close(state.hidden_BTD, expected_BTD)
    assert close(encoder.final_norm(states[-1].hidden_BTD), last)
    assert not close(states[0].hidden_BTD, states[1].hidden_BTD, 0.1)


@torch.no_grad()
def test_every_row_of_a_batch_of_three_equals_transformers(
    folder: Path,
) -> None:
    """A layer that returns a tensor is not taken for a tuple's first entry.

    transformers returned tuples up to 5.10 and returns tensors since 5.17,
    where `[0]` is the first utterance, broadcast over the others unnoticed.
    """
    wavs = [noise(7000, 1), noise(6200, 2), noise(4100, 3)]
    states = SSLEncoder(str(folder), EVERY).eval()(*padded(wavs))
    for row, wav in enumerate(wavs):
        *expected, _ = original_states(folder, wav)
        for state, expected_BTD in zip(states, expected, strict=True):
            frames = int(state.lengths_B[row])
            assert frames == expected_BTD.shape[1]
            own_BTD = state.hidden_BTD[row : row + 1, :frames]
            assert close(own_BTD, expected_BTD)


@torch.no_grad()
def test_random_weights_run_as_transformers_does(
    folder: Path, tmp_path: Path
) -> None:
    """Trained from scratch it is the same encoder, at every layer."""
    wav = noise(5000, 1)
    torch.manual_seed(3)
    encoder = SSLEncoder(str(folder), EVERY, pretrained=False).eval()
    config = original(folder).config  # whose loading draws numbers
    torch.manual_seed(3)
    model = transformers.AutoModel.from_config(config)
    copied = shutil.copytree(folder, tmp_path / "random")
    model.save_pretrained(copied)
    *expected, last = original_states(copied, wav)
    states = encoder(*padded([wav]))
    for state, expected_BTD in zip(states, expected, strict=True):
        assert close(state.hidden_BTD, expected_BTD)
    assert close(encoder.final_norm(states[-1].hidden_BTD), last)


@torch.no_grad()
def test_states_are_the_hidden_states_of_transformers(folder: Path) -> None:
    """Exit k reads ``hidden_states[k]``, the number that papers speak of."""
    wav = noise(5000, 2)
    encoder = SSLEncoder(str(folder), EVERY).eval()
    states = [encoder.start(*padded([wav]))]
    states += encoder(*padded([wav]))
    model = original(folder)
    out = model(prepared(folder, wav), output_hidden_states=True)
    for depth, state in enumerate(states[:-1]):
        assert close(state.hidden_BTD, out.hidden_states[depth])


@torch.no_grad()
def test_exit_equals_truncated_bit_for_bit(folder: Path) -> None:
    """The model left at exit k and the model that ends there."""
    model = ssl_model(folder)
    batch = padded([noise(7000, 1), noise(4100, 2)], extra=300)
    joint = model(*batch)
    for exits in (1, 2, 3):
        small = model.truncated(exits)
        assert len(small.encoder.layers) == (1, 2, 4)[exits - 1]
        for expected, output in zip(joint, small(*batch)):
            assert torch.equal(output.log_probs_BTV, expected.log_probs_BTV)


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


@torch.no_grad()
def test_state_dict_and_deepcopy(folder: Path) -> None:
    """A copy is equal and independent; weights travel in the state_dict."""
    model = ssl_model(folder)
    batch = padded([noise(5000, 1)])
    copied = copy.deepcopy(model)
    expected = model(*batch)[-1].log_probs_BTV
    shaken(model, seed=3)
    assert torch.equal(copied(*batch)[-1].log_probs_BTV, expected)
    fresh = ssl_model(folder)
    fresh.load_state_dict(model.state_dict())
    changed = model(*batch)[-1].log_probs_BTV
    assert not close(changed, expected, 1e-3)
    assert torch.equal(fresh(*batch)[-1].log_probs_BTV, changed)


@torch.no_grad()
def test_no_deprecated_masks(wavlm_folder: Path) -> None:
    """Padding and position biases reach PyTorch as the same type."""
    model = ssl_model(wavlm_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(*padded([noise(7000, 1), noise(4100, 2)]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(*padded([noise(7000, 1), noise(4100, 2)]))


@pytest.mark.parametrize("exit_layers", [[5], [2, 4, 6]])
def test_exits_beyond_the_model(
    one_folder: Path, exit_layers: list[int]
) -> None:
    """The message has the model, its depth, and what may be asked for."""
    with pytest.raises(InputError, match=r"exit_layers.*4 layers of .*1 to 4"):
        SSLEncoder(str(one_folder), exit_layers)
    with pytest.raises(InputError, match="exit_layers"):
        SSLEncoder(str(one_folder), ["2"])


def test_sample_rate_of_another_kind_of_audio(one_folder: Path) -> None:
    """Audio of 8 kHz would pass for slow speech."""
    SSLEncoder(str(one_folder), [4], sample_rate=16000)
    with pytest.raises(InputError, match="^sample_rate: 8000 Hz.* to 16000"):
        SSLEncoder(str(one_folder), [4], sample_rate=8000)
