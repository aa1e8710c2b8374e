"""What is contributed gives what this project gives.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from torch import nn

from speechbrain_ee.exits.criteria import get_criterion, measure_all
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.options import load_options
from speechbrain_ee.training.systems import seed_step
from tests import helpers
from upstream.checkout import overrides_like
from upstream.gates import RECIPE, ROOT, TREE

STEPS = 10
NAMES = {"entropy": "entropy", "max_prob": "max_prob"}
NAMES["patience"] = "patience_distribution:patience=2"


def contributed(lobe: ModuleType, stack: nn.Module, layers: Any) -> nn.Module:
    """A contributed model of the sizes of the helpers' tiny one."""
    encoder = lobe.MultiExitEncoder(
        lobe.LogMel(
            helpers.Fbank(n_mels=helpers.N_MELS, n_fft=400),
            helpers.InputNormalization(norm_type="sentence", epsilon=0.001),
        ),
        lobe.MaskedConvolutionFrontEnd(
            (None, None, helpers.N_MELS),
            num_blocks=2,
            num_layers_per_block=1,
            out_channels=[6, 4],
            kernel_sizes=[3, 3],
            strides=[2, 2],
            dropout=0.0,
        ),
        copy.deepcopy(stack),
        layers,
    )
    heads = lobe.CTCHeads(layers, 16, helpers.VOCAB)
    return lobe.EarlyExitModel(encoder, heads).eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Three utterances of different lengths."""
    wavs = [helpers.noise(n, seed=n) for n in (9000, 6100, 2345)]
    return helpers.padded(wavs, fill=0.3)


@pytest.mark.parametrize("stack", helpers.STACKS)
@torch.no_grad()
def test_same_parameters_and_outputs(lobe, stack):
    """A checkpoint of one is one of the other; padded batches, every exit."""
    made = helpers.tiny_stack(*stack)
    ours = helpers.shaken(helpers.tiny_model(made))
    other = contributed(lobe, made, helpers.EXITS)
    other.load_state_dict(ours.state_dict(), strict=True)
    wavs, wav_lens = batch()
    for mine, theirs in zip(ours(wavs, wav_lens), other(wavs, wav_lens)):
        assert theirs.layer == mine.layer
        assert torch.equal(theirs.lengths, mine.lengths_B)
        for row, frames in enumerate(mine.lengths_B):
            difference = (
                theirs.log_probs[row, :frames]
                - mine.log_probs_BTV[row, :frames]
            )
            assert difference.abs().max() < 1e-5


@pytest.mark.parametrize("style", ["base", "large"])
@torch.no_grad()
def test_same_pretrained_encoder(lobe, tmp_path, style):
    """From one folder: SpeechBrain's wav2vec2 with exits, and ours."""
    pytest.importorskip("transformers")
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2

    from speechbrain_ee.models.pretrained import SSLEncoder
    from tests.models.ssl_models import write_ssl_model

    folder = str(write_ssl_model(tmp_path, "wav2vec2", style))
    ours = SSLEncoder(folder, [1, 3]).eval()
    wav2vec2 = Wav2Vec2(folder, str(tmp_path / "save"))
    other = lobe.SSLEncoder(wav2vec2, [1, 3]).eval()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in other.state_dict().items()
    }
    wavs, wav_lens = batch()
    mine, state = ours(wavs, wav_lens), other.start(wavs, wav_lens)
    for each in mine:
        state = other.advance(state)
        assert torch.equal(state.lengths, each.lengths_B)
        for row, frames in enumerate(each.lengths_B):
            difference = (
                state.hidden[row, :frames] - each.hidden_BTD[row, :frames]
            )
            assert difference.abs().max() < 1e-5


@pytest.fixture(scope="module")
def said(lobe: ModuleType) -> tuple[list[Any], list[Any]]:
    """Outputs of four exits, as either knows them; two utterances are blank
    at the first ones."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 20, (40,), generator=generator)
    theirs, ours = [], []
    for exit in range(4):
        logits = torch.randn(40, 20, 7, generator=generator) * (exit + 1)
        logits[: 2 - exit, :, 0] += 99
        log_probs = logits.log_softmax(-1)
        theirs.append(lobe.ExitOutput(log_probs, lengths, exit + 1))
        ours.append(
            ExitOutput(log_probs, lengths, exit + 1, hidden_BTD=log_probs)
        )
    return theirs, ours


def evidence_of(outputs: list[Any]) -> Evidence:
    """What this project measures of them."""
    views: list[ExitView] = []
    measured = []
    for output in outputs:
        views.append(ExitView(output, list(views)))
        measured.append(measure_all(views[-1]))
    values = {
        name: np.stack(
            [
                each[name].double().numpy()
                if name in each
                else np.full(40, np.nan)
                for each in measured
            ],
            axis=1,
        )
        for name in measured[-1]
    }
    ids = [f"u{row}" for row in range(40)]
    return Evidence(np.arange(1, 5), ids, values)


@pytest.mark.parametrize("criterion", sorted(NAMES))
def test_same_scores_and_decisions(lobe, said, criterion):
    """At every threshold that a score gives."""
    theirs, ours = said
    scores_NE = np.stack(
        [
            lobe.exit_scores(criterion, theirs[:k]).double().numpy()
            for k in (1, 2, 3, 4)
        ],
        axis=1,
    )
    wanted_NE = get_criterion(NAMES[criterion]).scores(evidence_of(ours))
    assert np.array_equal(np.isfinite(scores_NE), np.isfinite(wanted_NE))
    finite = np.isfinite(wanted_NE)
    assert np.abs(scores_NE[finite] - wanted_NE[finite]).max() < 1e-6
    values = np.unique(wanted_NE[:, :-1])
    between = (values[1:] + values[:-1]) / 2
    apart = np.isfinite(between) & (np.diff(values) > 1e-5)
    for threshold in between[apart]:
        chosen_N = ThresholdPolicy(criterion, threshold).choose(wanted_NE)
        stop_NE = scores_NE >= threshold
        stop_NE[:, -1] = True
        assert np.array_equal(stop_NE.argmax(1), chosen_N)


class Recorded:
    """A Brain that seeds every step by its place, and keeps its losses."""

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """As this project's Brain seeds steps."""
        seed_step(1986, self.hparams.epoch_counter.current, self.step)
        super().on_fit_batch_start(batch, should_step)

    def on_fit_batch_end(
        self, batch: Any, outputs: Any, loss: Any, should_step: bool
    ) -> None:
        """Keeps the loss."""
        self.seen.append(float(loss.detach()))


def trained(
    brain_class: type,
    hparams: dict[str, Any],
    **options: Any,
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of ten steps on batches of tones, and the first weights."""
    recorded = type("R", (Recorded, brain_class), {"seen": []})
    brain = recorded(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True},
        checkpointer=hparams["checkpointer"],
        **options,
    )
    brain.tokenizer = helpers.ToneTokenizer()
    brain.steps_per_epoch = STEPS
    first = copy.deepcopy(hparams["modules"]["model"].state_dict())
    data = helpers.tone_dataset(4 * STEPS)
    loader = sb.dataio.dataloader.make_dataloader(data, batch_size=4)
    brain.fit(hparams["epoch_counter"], loader)
    return brain.seen, first


def test_same_losses_for_ten_steps(recipe, lobe, tmp_path):
    """From one seed, with augmentation and dropout, from YAML to optimiser."""
    small = {
        "data_folder": str(tmp_path),
        "number_of_epochs": 1,
        "d_model": 32,
        "d_ffn": 64,
        "output_neurons": helpers.VOCAB,
    }
    ours_at, theirs_at = (
        {**small, "output_folder": str(tmp_path / each)}
        for each in ("ours", "theirs")
    )
    ours = load_options(str(ROOT / "hparams/digits.yaml"), json.dumps(ours_at))
    path = TREE / RECIPE / "hparams/conformer_ctc.yaml"
    like = {**overrides_like("digits"), **theirs_at}
    theirs = load_hyperpyyaml(path.read_text("utf-8"), json.dumps(like))
    found, first = trained(
        ours["brain_class"], ours, tokenizer=helpers.ToneTokenizer()
    )
    other, weights = trained(recipe["ASR"], theirs)
    assert isinstance(ours["modules"]["model"], EarlyExitModel)
    assert first.keys() == weights.keys()
    for name, value in first.items():
        assert torch.equal(value, weights[name]), name
    assert len(found) == STEPS and found[-1] < found[0]
    # sums of six losses, some thirty nats, in fp32
    assert other == pytest.approx(found, rel=1e-5)
