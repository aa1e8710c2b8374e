"""Every family of pre-trained encoders is the encoder of transformers.

Protects: equality at every layer, features included; exits equal to truncated
models bit for bit; an utterance alone equal to the same in any batch, rows
selected on the way or not; gradients that reach all that is run.

Axes: B utterances, T frames, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import shutil
from pathlib import Path

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.pretrained import PretrainedEncoder
from tests.helpers import noise, padded, valid
from tests.models.pretrained_models import (
    LAYERS,
    MODELS,
    original_states,
    pretrained_model,
    transformers,
    write_model,
)
from tests.models.ssl_models import check_truncations, close
from tests.models.test_ssl import trained

# Of states of unit scale. Wav2Vec2-BERT's own extractor rounds its features to
# 3e-6 before it standardises them, and layers multiply that.
TOLERANCE = {"wav2vec2-bert": 1e-4}
EVERY = tuple(range(1, LAYERS + 1))


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp(name), name)


def spoken(samples: int, seed: int) -> torch.Tensor:
    """Noise that ends in silence: Whisper's extractor reflects its end."""
    wav = 0.1 * noise(samples, seed)
    wav[-240:] = 0.0
    return wav


@torch.no_grad()
def test_states_are_those_of_transformers(name: str, folder: Path) -> None:
    """At every layer, in a batch with a shorter and a longer utterance."""
    samples = 16000 if name == "whisper" else 15570
    wav = spoken(samples, 1)
    expected = original_states(folder, name, wav)
    encoder = PretrainedEncoder(str(folder), EVERY).eval()
    batch = [wav, spoken(9000, 2)]
    if name != "whisper":
        batch.append(spoken(17000, 3))
    for state, expected_BTD in zip(encoder(*padded(batch)), expected):
        frames = int(state.lengths_B[0])
        assert frames == encoder.frames(samples)
        own_TD = state.hidden_BTD[0, :frames]
        assert 0 <= expected_BTD.shape[1] - frames <= 1
        worst = (own_TD - expected_BTD[0, :frames]).abs().max()
        scale = max(1.0, float(expected_BTD.abs().max()))
        assert worst < TOLERANCE.get(name, 1e-5) * scale


@torch.no_grad()
def test_exit_equals_truncated_bit_for_bit(folder: Path) -> None:
    """The model left at exit k and the model that ends there."""
    check_truncations(pretrained_model(folder))


@torch.no_grad()
def test_alone_equals_batch(folder: Path) -> None:
    """Any order, any length beside it, any padding, rows leaving."""
    model = pretrained_model(folder)
    wavs = [noise(7000, 1), noise(401, 2), noise(9123, 3), noise(4000, 4)]
    alone = [model(*padded([wav])) for wav in wavs]
    for order, extra, fill in (
        ([0, 1, 2, 3], 0, 0.0),
        ([2, 3, 0, 1], 777, 0.3),
        ([1, 0], 5, float("nan")),
    ):
        batch = model(*padded([wavs[n] for n in order], extra, fill))
        for row, n in enumerate(order):
            for one, many in zip(alone[n], batch):
                assert int(one.lengths_B) == int(many.lengths_B[row])
                assert int(one.lengths_B) == model.encoder.frames(len(wavs[n]))
                assert close(valid(one), valid(many, row))
    state = model.start(*padded(wavs, extra=100))
    for exit, rows in enumerate([[0, 1, 2, 3], [0, 1, 3], [1, 3]], start=1):
        keep_B = torch.isin(state.rows_B, torch.tensor(rows))
        state, output = model.step(state.select(keep_B))
        for row, n in enumerate(rows):
            assert close(valid(output, row), valid(alone[n][exit - 1]))


@torch.no_grad()
def test_shortest_audio(folder: Path) -> None:
    """At least one frame, finite, and the same alone and in a batch."""
    model = pretrained_model(folder)
    for samples in (1, 2, 399, 400, 640, 1281):
        wav = noise(samples + 400, 5)[:samples]
        alone = model(*padded([wav]))
        batch = model(*padded([noise(3000, 1), wav]))
        frames = model.encoder.frames(samples)
        assert frames >= 1
        tensor = model.encoder.frames(torch.tensor([samples]))
        assert tensor.tolist() == [frames]
        for one, many in zip(alone, batch):
            assert one.lengths_B.tolist() == [frames]
            assert torch.isfinite(one.log_probs_BTV).all()
            assert close(valid(one), valid(many, 1))


def test_gradients_reach_what_is_run(folder: Path) -> None:
    """Everything but the norm above the last layer."""
    model = pretrained_model(folder)
    learning = {
        name for name, each in model.named_parameters() if each.requires_grad
    }
    reached = trained(model)
    # The bias of keys moves all scores of a query alike: it learns nothing.
    idle = {n for n in learning if n.endswith(("k_proj.bias", "_k.bias"))}
    assert reached | idle == learning
    frozen = {name for name, _ in model.named_parameters()} - learning
    assert all(name.startswith("encoder.final_norm") for name in frozen)


def test_whisper_has_positions_for_so_long(tmp_path: Path) -> None:
    """One second, here; the message says so in frames."""
    model = pretrained_model(write_model(tmp_path, "whisper"))
    model(*padded([noise(16159, 1)]))
    with pytest.raises(InputError, match="51 frames is longer than the 50"):
        model(*padded([noise(16160, 1)]))


def test_training_in_half_precision(folder: Path) -> None:
    """bf16 on a CPU, forward and backward, dropout and all, like fp32."""
    model = pretrained_model(folder)
    batch = padded([noise(7000, 1), noise(4100, 2)])
    expected = model(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(*batch)
        learning = model.train()(*batch)
    for one, other in zip(expected, outputs):
        assert other.log_probs_BTV.dtype == torch.float32
        assert close(valid(one, 1), valid(other, 1), 1.0)
    loss = sum(
        valid(output, row).sum() for output in learning for row in (0, 1)
    )
    loss.backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in found)


@pytest.mark.parametrize("name", ["parakeet", "lasr", "granite_speech"])
def test_encoder_of_a_whole_model(tmp_path: Path, name: str) -> None:
    """With a CTC head, or a language model, around it."""
    folder = write_model(tmp_path / "alone", name)
    encoder = transformers.AutoConfig.from_pretrained(folder).to_dict()
    if name == "granite_speech":
        inner = {"hidden_size": 16, "num_attention_heads": 2}
        inner |= {"num_hidden_layers": 1, "intermediate_size": 16}
        text = {"model_type": "granite", "vocab_size": 9, "pad_token_id": 0}
        text |= {"num_key_value_heads": 2, "eos_token_id": 1}
        projector = {"model_type": "blip_2_qformer", "encoder_hidden_size": 16}
        config = transformers.GraniteSpeechConfig(
            encoder_config=encoder,
            text_config=inner | text,
            projector_config=inner | projector,
            has_lora_adapter=False,
        )
        whole = transformers.GraniteSpeechForConditionalGeneration(config)
        inside = getattr(whole, "model", whole).encoder
    else:
        kind = name.capitalize()
        config = getattr(transformers, f"{kind}CTCConfig")(
            encoder_config=encoder, vocab_size=9, pad_token_id=0
        )
        whole = getattr(transformers, f"{kind}ForCTC")(config)
        inside = whole.encoder
    whole.save_pretrained(tmp_path)
    extractor = "preprocessor_config.json"
    shutil.copy(folder / extractor, tmp_path / extractor)
    loaded = PretrainedEncoder(str(tmp_path), EVERY)
    assert loaded.d_model == 16
    for own, other in zip(
        loaded.layers[0].parameters(), inside.layers[0].parameters()
    ):
        assert torch.equal(own, other)
