"""Self-supervised pre-training: objective, resume, the folder it leaves.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.ssl import SSLEncoder
from speechbrain_ee.training.held_out import HeldOut, measure
from speechbrain_ee.training.pretrainer import CHECKPOINT, SUMMARY
from speechbrain_ee.training.pretraining import MaskedPrediction, nearest_seen
from tests.training.pretraining_runs import (
    RATE,
    TINY,
    batches,
    melody,
    pretrainer,
    weights,
    write_corpus,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated audio, only to be read."""
    return write_corpus(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "model"
    pretrainer(corpus, out).run()
    return out


def test_resumed_run_equals_an_uninterrupted_one(
    corpus: Path, finished: Path, tmp_path: Path
) -> None:
    """Same weights, same figures, bit for bit."""
    pretrainer(corpus, tmp_path).run(last=2)
    summary = json.loads((tmp_path / SUMMARY).read_text("utf-8"))
    assert (summary["step"], summary["finished"]) == (2, False)
    torch.manual_seed(5)  # whatever happens between the two
    resumed = pretrainer(corpus, tmp_path)
    assert resumed.step == 2
    resumed.run()
    whole, halves = weights(finished), weights(tmp_path)
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    last = [
        json.loads((out / SUMMARY).read_text("utf-8"))["history"][-1]
        for out in (finished, tmp_path)
    ]
    for one in last:
        del one["train_loss"]  # over the steps since the last checkpoint
    assert last[0] == last[1] and last[0]["step"] == TINY.steps


def test_finished_run_is_left_as_it_is(corpus: Path, finished: Path) -> None:
    """A second call trains nothing and writes nothing."""
    before = (finished / CHECKPOINT).stat().st_mtime_ns
    pretrainer(corpus, finished).run()
    assert (finished / CHECKPOINT).stat().st_mtime_ns == before


def test_what_is_left_runs_with_exits(corpus: Path, finished: Path) -> None:
    """An SSL encoder on the folder gives the states that were trained."""
    trained = pretrainer(corpus, finished).objective.backbone.eval()
    encoder = SSLEncoder(str(finished), [1, 2], sample_rate=RATE).eval()
    assert not list(finished.glob(".part*"))
    wav = torch.from_numpy(melody(0, 1.7)).float()[None]
    with torch.no_grad():
        states = encoder(wav, torch.ones(1))
        normal = (wav - wav.mean()) / (wav.var(unbiased=False) + 1e-7).sqrt()
        expected = trained(normal, output_hidden_states=True).hidden_states
    assert states[0].hidden_BTD.shape == expected[1].shape
    assert torch.allclose(states[0].hidden_BTD, expected[1], atol=1e-5)


def test_loss_falls_below_the_frequencies_of_codes(
    corpus: Path, tmp_path: Path
) -> None:
    """A hundred steps learn what a hidden tone must be."""
    options = replace(TINY, steps=100, lr=0.01)
    history = pretrainer(corpus, tmp_path, options).run()
    first, last = history[0], history[-1]
    assert last["loss"] < 0.7 * first["loss"]
    assert last["loss"] < last["unigram_loss"]
    assert last["accuracy"] > last["majority_accuracy"] + 0.1


def test_hidden_frames_are_not_seen() -> None:
    """What the convolutions say of hidden frames does not reach the loss."""
    objective = MaskedPrediction(TINY).eval()
    convolutions = objective.backbone.feature_extractor
    wav = torch.from_numpy(melody(1, 2.0)).float()[None]
    kept = convolutions(wav)
    mask = torch.zeros(1, kept.shape[2], dtype=torch.bool)
    mask[:, 21:29] = True
    noise = torch.randn(kept.shape)

    @torch.no_grad()
    def loss(features: torch.Tensor) -> float:
        module = "speechbrain_ee.training.pretraining"
        with (
            mock.patch(f"{module}.compute_mask", lambda *_: mask.numpy()),
            mock.patch.object(convolutions, "forward", lambda _: features),
        ):
            return float(objective(wav)[0])

    own = loss(kept)
    assert loss(torch.where(mask[:, None], noise, kept)) == own
    assert loss(torch.where(mask[:, None], kept, noise)) != own


@pytest.mark.parametrize("frame_ms", [20, 40])
def test_targets_follow_the_audio_in_time(frame_ms: int) -> None:
    """Targets shift with the audio, and there is one for every frame."""
    objective = MaskedPrediction(replace(TINY, frame_ms=frame_ms))
    shift = 5 * frame_ms * RATE // 1000
    # Silence at both ends: the normalisation is the same for both.
    wav = torch.zeros(1, 3 * RATE)
    wav[:, RATE : 2 * RATE] = torch.from_numpy(melody(2, 1.0)).float()
    wav = wav + 1e-3 * torch.sin(torch.arange(3 * RATE) * 0.7854)
    moved = wav.roll(shift, 1)
    here, there = objective.targets(wav), objective.targets(moved)
    hidden = objective.backbone.feature_extractor(wav)
    assert here.shape == (1, hidden.shape[2], TINY.codebooks)
    inner = slice(10, 1400 // frame_ms)
    agree = here[:, inner] == there[:, inner.start + 5 : inner.stop + 5]
    assert agree.float().mean() > 0.9
    assert (here[:, inner] == there[:, inner]).float().mean() < 0.8


def test_measuring_changes_nothing(corpus: Path) -> None:
    """Same figures twice; random state and mode as before."""
    objective = MaskedPrediction(TINY).train()
    valid = batches(corpus, "dev")
    state = torch.get_rng_state()
    one, other = (
        measure(objective, valid.all()),
        measure(objective, valid.all()),
    )
    assert one == other and objective.training
    assert torch.equal(state, torch.get_rng_state())
    assert one.unigram_loss == pytest.approx(math.log(one.target_perplexity))
    # Nobody knows less than one who knows nothing.
    assert one.unigram_loss <= math.log(TINY.codes) + 1e-6


def test_nearest_seen_is_the_nearest() -> None:
    """As a search frame by frame finds it."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 30, generator=generator) < 0.6
    codes = torch.randint(0, 9, (3, 30, 2), generator=generator)
    found = nearest_seen(codes, mask)
    for row in range(3):
        seen = [t for t in range(30) if not mask[row, t]]
        for frame in range(30):
            near = min(seen, key=lambda t: (abs(t - frame), t))  # noqa: B023
            assert torch.equal(found[row, frame], codes[row, near])


def test_warnings_name_what_is_wrong() -> None:
    """Healthy figures pass, collapsed ones do not."""
    fine = HeldOut(4.0, 0.2, 4.5, 0.1, 0.2, 90.0, 60.0)
    assert fine.warnings(256) == []
    (collapsed,) = replace(fine, prediction_perplexity=1.2).warnings(256)
    assert "collapsed" in collapsed
    (silent,) = replace(fine, target_perplexity=2.0).warnings(256)
    assert "silent" in silent


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": 0},
        {"conv_dim": (8, 8)},
        {"frame_ms": 30},
        {"heads": 5},
        {"width": 40},
        {"mask_share": 0.9},
        {"precision": "fp16"},
        {"crop_s": 0.5},
        {"batch_s": 1.0},
        {"steps": -1},
        {"lr": float("nan")},
        {"seed": -1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_option_is_named(wrong: dict) -> None:
    """The error begins with the option and holds its value."""
    ((name, value),) = wrong.items()
    with pytest.raises(InputError) as caught:
        replace(TINY, **wrong)
    assert str(caught.value).startswith(f"--{name}: {value}")


def test_folder_of_another_run_is_refused(corpus: Path, finished: Path) -> None:
    """Other settings cannot go on from its checkpoint; nor can rubbish."""
    with pytest.raises(InputError, match="--lr: 0.5, but the run in"):
        pretrainer(corpus, finished, replace(TINY, lr=0.5))


def test_broken_checkpoint_is_named(corpus: Path, tmp_path: Path) -> None:
    """With the way out."""
    (tmp_path / CHECKPOINT).write_bytes(b"rubbish")
    with pytest.raises(InputError, match=f"{CHECKPOINT}: cannot be read"):
        pretrainer(corpus, tmp_path)
