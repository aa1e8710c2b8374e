"""A tiny recogniser, its trace, and what the trace predicts of live runs.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from speechbrain_ee.evaluation.cost import CostModel, DecodingCost
from speechbrain_ee.evaluation.recorder import Recorded, TraceRecorder
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.decoding import GREEDY, Decoding, SearchOptions
from speechbrain_ee.exits.trace import Trace, TraceHeader
from speechbrain_ee.inference.folder.model_folder import ModelFolder
from speechbrain_ee.inference.runner import LiveRunner
from speechbrain_ee.models.model import EarlyExitModel
from tests.helpers import SAMPLE_RATE, VOCAB, noise, padded, shaken, tiny_model

EXITS = (1, 2, 3, 4)
PIECES = ("", *(f"\u2581t{n}" for n in range(1, VOCAB)))
LENGTHS = (9000, 21000, 4000, 15500, 12345, 30000)


def decode(tokens: Sequence[int]) -> str:
    """A word per token."""
    return " ".join(f"t{token}" for token in tokens)


def live_model(attention: str | None = None, **options) -> EarlyExitModel:
    """Four layers with an exit behind each, and no two exits alike."""
    model = shaken(
        tiny_model(exit_layers=EXITS, attention=attention, **options)
    )
    for projection in model.heads.projections:
        # More tokens than blanks, and not sure of any.
        projection.bias.data[0] -= 1.0
    return model.eval()


def waves(lengths: Sequence[int] = LENGTHS) -> list[Tensor]:
    """Some noise of every length."""
    return [noise(n, seed) for seed, n in enumerate(lengths)]


class Tokenizer:
    """SentencePiece's interface: a word per token, 1 and 2 are control."""

    def get_piece_size(self) -> int:
        return VOCAB - 1  # characters may be fewer than output_neurons

    def is_control(self, token: int) -> bool:
        return token in (1, 2)

    def id_to_piece(self, token: int) -> str:
        return f"\u2581t{token}"

    def decode_ids(self, tokens: list[int]) -> str:
        assert all(token < self.get_piece_size() for token in tokens)
        return decode([t for t in tokens if not self.is_control(t)])


def folder_of(model: EarlyExitModel) -> ModelFolder:
    """What an inference folder would hold."""
    policies = {
        "fast": ExitPolicy("entropy", EXITS, -9.0, "layers=1", "naive"),
        "slow": ExitPolicy("entropy", EXITS, 9.0, "layers=9", "naive"),
    }
    return ModelFolder(
        path=None,
        name="tiny",
        model=model,
        architecture=None,
        tokenizer=Tokenizer(),
        sample_rate=SAMPLE_RATE,
        search=SearchOptions(beam_size=2),
        policies=policies,
        default_policy="fast",
    )


def runner_of(
    model: EarlyExitModel, decoding: str = GREEDY, beam_size: int = 3
) -> LiveRunner:
    """The live runner of a tiny model."""
    return LiveRunner(
        model,
        PIECES,
        decode,
        SAMPLE_RATE,
        decoding,
        SearchOptions(beam_size=beam_size),
    )


def trace_of(
    model: EarlyExitModel,
    wavs: Sequence[Tensor],
    decoding: str = GREEDY,
    beam_size: int = 3,
) -> Trace:
    """What evaluation at full depth records, utterance by utterance."""
    cost, options = CostModel(model), SearchOptions(beam_size=beam_size)
    decoder = None
    if decoding != GREEDY:
        find = Decoding(decoding, model, options)
        price = partial(DecodingCost(model, options).macs, decoding)
        decoder = Recorded(find, price, find.uses_attention)
    recorder = TraceRecorder(
        "test", decode, cost.macs, SAMPLE_RATE, {decoding: decoder}
    )
    for row, wav in enumerate(wavs):
        with torch.no_grad():
            outputs = model(*padded([wav]))
        recorder.append([str(row)], ["t1 t2"], [len(wav)], outputs)
    header = TraceHeader(
        "tiny",
        decoding,
        model.exit_layers,
        vocab_size=VOCAB,
        frames_per_s=cost.frames(100 * SAMPLE_RATE) / 100,
        width=recorder.width,
    )
    return Trace(header, tuple(recorder.records))


def thresholds_between(scores_NE: np.ndarray, seed: int = 0) -> list[float]:
    """Thresholds that part the utterances, none of them a score."""
    finite = np.unique(scores_NE[:, :-1][np.isfinite(scores_NE[:, :-1])])
    gaps = np.diff(finite)
    wide = np.flatnonzero(gaps > 1e-3 * max(1e-9, np.ptp(finite)))
    middles = finite[wide] + gaps[wide] / 2
    rng = np.random.default_rng(seed)
    below = [float(finite[0]) - 0.5] if len(finite) else []
    return sorted([*rng.permutation(middles)[:4].tolist(), *below])


class LayerCounter:
    """Counts the utterances that go through every layer and every head."""

    def __init__(self, model: EarlyExitModel):
        self.layers = [0] * len(model.encoder.layers)
        self.heads = [0] * len(model.exit_layers)
        self.frames = [0] * len(model.encoder.layers)
        self.handles = []
        for kind, modules in (
            ("layers", model.encoder.layers),
            ("heads", model.heads.norms),
        ):
            for number, module in enumerate(modules):
                hook = partial(self._count, kind, number)
                self.handles.append(module.register_forward_pre_hook(hook))

    def __enter__(self) -> "LayerCounter":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _count(self, kind, number, module, inputs) -> None:
        getattr(self, kind)[number] += len(inputs[0])
        if kind == "layers":
            self.frames[number] += inputs[0].shape[0] * inputs[0].shape[1]
