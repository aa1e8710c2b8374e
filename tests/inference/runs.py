"""Output folders of runs that never took place, as training leaves them.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import Tensor

from speechbrain_ee.evaluation.calibrate import SELECTOR_FILE
from speechbrain_ee.exits.selector.selector import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import write_selector
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import write_trace
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import (
    backbone_fingerprint,
    tokenizer_fingerprint,
    yaml_fingerprint,
)
from tests.helpers import noise, padded, shaken

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
SPEECHBRAIN = ("digits", "digits_aed")
SYSTEMS = (*SPEECHBRAIN, "tiny_ssl")
TEXTS = ("ONE TWO", "THREE FOUR FIVE", "SIX SEVEN EIGHT", "NINE OH ZERO")
SHRINK = {
    "data_folder": "/nowhere",
    "token_type": "char",
    "d_model": 16,
    "nhead": 2,
    "d_ffn": 24,
    "kernel_size": 5,
    "num_decoder_layers": 1,
    "exit_budget": "wer=+50%",
    "decodings": None,
    "average_checkpoints": 2,
    "pretrained": False,
}


@dataclass(frozen=True)
class Run:
    """An output folder, and the model that evaluation would use."""

    folder: Path
    model: EarlyExitModel
    dev: Trace
    test: Trace


class Bomb:
    """Leaves a marker when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def write_run(
    folder: Path, system: str = "digits", seed: int = 0, **overrides: Any
) -> Run:
    """Resolve a YAML of the recipe, build it, save two checkpoints."""
    text = (HPARAMS / f"{system}.yaml").read_text("utf-8")
    given = {"output_folder": str(folder), **SHRINK, **overrides}
    given = {k: v for k, v in given.items() if f"\n{k}:" in text}
    if given.get("decodings", 1) is None:
        del given["decodings"]
    torch.manual_seed(seed)
    resolved = resolve_references(io.StringIO(text), given).getvalue()
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text(resolved, "utf-8")
    hparams = load_hyperpyyaml(resolved)
    model, states = hparams["model"], []
    save = folder / "save"
    attends = model.attention is not None
    tokenizer = save / f"{hparams['output_neurons']}_char.model"
    write_tokenizer(
        tokenizer,
        bos_id=1 if attends else -1,
        eos_id=2 if attends else -1,
    )
    hparams["checkpointer"].expect(
        yaml_fingerprint(resolved)
        | backbone_fingerprint(model)
        | tokenizer_fingerprint(
            SentencePieceProcessor(model_file=str(tokenizer))
        )
    )
    for step in (1, 2):
        shaken(model, seed + step, by=0.1)
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        hparams["checkpointer"].save_checkpoint(
            meta={"WER": float(step), "epoch": step}, end_of_epoch=True
        )
    mean = {k: (states[0][k] + states[1][k]) / 2 for k in states[0]}
    model.load_state_dict(mean)
    layers = model.exit_layers
    dev, test = random_trace("dev", layers, 1), random_trace("test", layers, 2)
    if len(layers) > 1:
        selector, scores_NE = LearnedSelector.fit_left_out(dev)
        write_selector(save / SELECTOR_FILE, selector)
        dev = dev.with_evidence("learned", scores_NE)
        test = test.with_evidence("learned", selector.scores(test.evidence))
    for trace in (dev, test):
        path = folder / "traces" / f"{trace.sets[0]}.jsonl.gz"
        write_trace(path, trace.header, trace.records)
    return Run(folder, model.eval(), dev, test)


def write_tokenizer(
    path: Path, texts: Sequence[str] = TEXTS, **options: Any
) -> Path:
    """A SentencePiece model of the letters in some texts."""
    stream = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([*texts] * 4),
        model_writer=stream,
        model_type="char",
        **{"vocab_size": 32, "hard_vocab_limit": False, **options},
        minloglevel=2,
    )
    path.write_bytes(stream.getvalue())
    return path


def random_trace(name: str, layers: tuple[int, ...], seed: int) -> Trace:
    """Errors and entropies that fall with depth, and go together."""
    rng, records = np.random.default_rng(seed), []
    for row in range(80):
        hard = rng.random()
        exits = []
        for place, layer in enumerate(layers):
            left = hard / (1 + place)
            exits.append(
                ExitRecord(
                    layer,
                    errors=int(4 * left + 0.4 * rng.random()),
                    evidence={"entropy": left + 0.05 * rng.random()},
                    macs=10**6 * (layer + 1),
                )
            )
        records.append(
            UtteranceRecord(
                f"speaker{row % 9}-{row}",
                name,
                "ONE TWO THREE FOUR",
                tuple(exits),
                2.0,
            )
        )
    header = TraceHeader(
        "random", "greedy", layers, vocab_size=32, frames_per_s=25.0
    )
    return Trace(header, tuple(records), name)


@torch.no_grad()
def log_probs(model: EarlyExitModel, seed: int = 0) -> list[Tensor]:
    """What every exit says of two utterances, their padding left out."""
    wavs, lens = padded([noise(16000, seed), noise(9000, seed + 1)])
    found = []
    for output in model(wavs, lens):
        for row, frames in enumerate(output.lengths_B.tolist()):
            found.append(output.log_probs_BTV[row, :frames])
    return found


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """Equal bit by bit."""
    return len(one) == len(other) and all(map(torch.equal, one, other))
