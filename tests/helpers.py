"""Tiny models, waveforms and Brains that the tests of several rooms share.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from torch import Tensor, nn

from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.features import LogMel
from speechbrain_ee.models.heads import CTCHeads, ExitOutput
from speechbrain_ee.models.masking import MaskedConvolutionFrontEnd
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import AtomicCheckpointer
from speechbrain_ee.training.schedules import WarmupCooldown
from speechbrain_ee.training.systems import (
    CTCAttentionEarlyExitBrain,
    CTCEarlyExitBrain,
)

N_MELS = 16
VOCAB = 7
EXITS = (2, 4)
SAMPLE_RATE = 16000
STACKS = (
    ("conformer", "RelPosMHAXL"),
    ("conformer", "RoPEMHA"),
    ("conformer", "regularMHA"),
    ("branchformer", "RelPosMHAXL"),
    ("branchformer", "regularMHA"),
    ("transformer", "regularMHA"),
    ("transformer", "RelPosMHAXL"),
)


def tiny_stack(
    encoder_module: str = "conformer",
    attention_type: str = "RelPosMHAXL",
    d_model: int = 16,
    num_layers: int = 4,
    causal: bool = False,
    **options: Any,
) -> TransformerASR:
    """SpeechBrain's encoder stack in evaluation mode, without dropout."""
    return TransformerASR(
        tgt_vocab=VOCAB,
        input_size=N_MELS,
        d_model=d_model,
        nhead=2,
        num_encoder_layers=num_layers,
        num_decoder_layers=0,
        d_ffn=2 * d_model,
        dropout=0.0,
        kernel_size=5,
        encoder_module=encoder_module,
        attention_type=attention_type,
        normalize_before=True,
        causal=causal,
        csgu_linear_units=2 * d_model,
        **options,
    ).eval()


def tiny_model(
    stack: TransformerASR | None = None,
    exit_layers: Sequence[int] = EXITS,
    mask_padding: bool = True,
    layerdrop_prob: float = 0.0,
    tied: bool = False,
    attention: str | None = None,
    seed: int = 0,
    **stack_options: Any,
) -> EarlyExitModel:
    """A whole model in evaluation mode, built from a copy of ``stack``.

    A copy, because the encoder rebuilds layers in place and tests compare
    with the stack as SpeechBrain made it. ``attention`` is the kind of
    decoders beside the CTC heads, ``shared`` or ``separate``.
    """
    torch.manual_seed(seed)
    stack = tiny_stack(**stack_options) if stack is None else stack
    fbank = Fbank(n_mels=N_MELS, n_fft=400, sample_rate=SAMPLE_RATE)
    encoder = MultiExitEncoder(
        features=LogMel(
            fbank, InputNormalization(norm_type="sentence", epsilon=0.001)
        ),
        front_end=MaskedConvolutionFrontEnd(
            input_shape=(None, None, N_MELS),
            mask_padding=mask_padding,
            num_blocks=2,
            num_layers_per_block=1,
            out_channels=[6, 4],
            kernel_sizes=[3, 3],
            strides=[2, 2],
            dropout=0.0,
        ),
        stack=copy.deepcopy(stack),
        exit_layers=exit_layers,
        mask_padding=mask_padding,
        layerdrop_prob=layerdrop_prob,
    )
    d_model = stack.encoder.norm.norm.normalized_shape[0]
    heads = CTCHeads(exit_layers, d_model, VOCAB, tied=tied)
    decoders = attention and tiny_attention(attention, exit_layers, d_model)
    return EarlyExitModel(encoder, heads, decoders).eval()


def tiny_attention(
    decoders: str = "shared",
    exit_layers: Sequence[int] = EXITS,
    d_model: int = 16,
    num_layers: int = 2,
    **options: Any,
) -> AttentionHeads:
    """Attention heads in evaluation mode, without dropout."""
    return AttentionHeads(
        exit_layers,
        d_model,
        VOCAB,
        decoders=decoders,
        num_layers=num_layers,
        nhead=2,
        d_ffn=2 * d_model,
        dropout=0.0,
        **options,
    ).eval()


def shaken(module: nn.Module, seed: int = 0, by: float = 0.3) -> nn.Module:
    """The same module, no parameter at its initial zero or one any more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += by * noise
    return module


def noise(samples: int, seed: int = 0) -> Tensor:
    """Noise whose loudness varies, so that no two frames are alike."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(samples, generator=generator)
    loudness = torch.rand(samples // 400 + 1, generator=generator)
    return 0.2 * white * loudness.repeat_interleave(400)[:samples]


def padded(
    wavs: Sequence[Tensor], extra: int = 0, fill: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """A batch and its relative lengths; ``extra`` samples beyond the longest.

    Padding holds ``fill``: a number, or a batch of noise to read it from.
    """
    longest = max(len(wav) for wav in wavs) + extra
    batch = torch.zeros(len(wavs), longest)
    batch += fill[:, :longest] if isinstance(fill, Tensor) else fill
    for row, wav in zip(batch, wavs):
        row[: len(wav)] = wav
    return batch, torch.tensor([len(wav) / longest for wav in wavs])


def valid(output: ExitOutput, row: int = 0) -> Tensor:
    """The log-probabilities of one utterance without its padding."""
    return output.log_probs_BTV[row, : int(output.lengths_B[row])]


def tone_utterance(tokens: Sequence[int], seed: int = 0) -> Tensor:
    """One tone per token, with quiet gaps: speech for a tiny model."""
    time_s = torch.arange(1920) / SAMPLE_RATE
    pieces = []
    for token in tokens:
        tone = torch.sin(2 * torch.pi * 350.0 * 1.6**token * time_s)
        pieces += [0.3 * tone, torch.zeros(800)]
    wav = torch.cat(pieces)
    generator = torch.Generator().manual_seed(seed)
    return wav + 0.003 * torch.randn(len(wav), generator=generator)


def tone_dataset(
    utterances: int = 8, seed: int = 0, first: int = 1
) -> DynamicItemDataset:
    """Utterances of 4 to 6 tones; the transcript names the tones.

    The tones are numbered from ``first``: 3 where 1 and 2 are the tokens for
    beginning and end.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = {}
    for n in range(utterances):
        tokens = torch.randint(first, VOCAB, (4 + n % 3,), generator=generator)
        wav = tone_utterance(tokens.tolist(), seed=n)
        rows[f"utt{n}"] = {
            "sig": wav,
            "tokens": tokens,
            "wrd": ToneTokenizer.sp.decode_ids(tokens.tolist()),
            "duration": len(wav) / SAMPLE_RATE,
        }
    return DynamicItemDataset(rows, output_keys=["id", "sig", "wrd", "tokens"])


def repeated(data: DynamicItemDataset, times: int) -> DynamicItemDataset:
    """Every utterance several times: an epoch with so many more steps.

    Validation and a checkpoint cost a tiny model more than its steps do.
    """
    rows = {
        f"{name}-{n}": row
        for n in range(times)
        for name, row in data.data.items()
    }
    return DynamicItemDataset(rows, output_keys=["id", "sig", "wrd", "tokens"])


def fit_tones(
    brain: CTCEarlyExitBrain,
    utterances: int = 8,
    first: int = 1,
    times: int = 1,
    batch_size: int = 4,
) -> CTCEarlyExitBrain:
    """Train on tones, several times an epoch; validate on the same tones."""
    data = tone_dataset(utterances, first=first)
    brain.fit(
        brain.hparams.epoch_counter,
        repeated(data, times),
        data,
        train_loader_kwargs={"batch_size": batch_size, "shuffle": True},
        valid_loader_kwargs={"batch_size": utterances},
    )
    return brain


class ToneTokenizer:
    """One word per token, with the interface of SpeechBrain's wrapper."""

    sp = SimpleNamespace(
        decode_ids=lambda tokens: " ".join(f"tone{t}" for t in tokens),
        get_piece_size=lambda: VOCAB,
        id_to_piece=lambda tokens: [f"tone{t}" for t in tokens],
        get_score=lambda tokens: [-1.0 for _ in tokens],
    )


def tiny_brain(
    folder: Path,
    model: EarlyExitModel | None = None,
    epochs: int = 1,
    lr: float = 0.001,
    brain_class: type[CTCEarlyExitBrain] | None = None,
    **overrides: Any,
) -> CTCEarlyExitBrain:
    """A real Brain that trains, logs and saves below ``folder``.

    Without a ``brain_class`` it trains all heads that the model has.
    """
    model = tiny_model() if model is None else model
    if brain_class is None:
        brain_class = (
            CTCEarlyExitBrain
            if model.attention is None
            else CTCAttentionEarlyExitBrain
        )
    counter = EpochCounter(limit=epochs)
    schedule = WarmupCooldown(lr, warmup_share=0.1, cooldown_share=0.5)
    hparams = {
        "seed": 1,
        "output_folder": str(folder),
        "epoch_counter": counter,
        "lr_annealing": schedule,
        "wav_augment": None,
        "exit_weights": None,
        "attention_exit_weights": None,
        "ctc_weight": 0.3,
        "label_smoothing": 0.0,
        "checkpoint_rule": "last_exit",
        "keep_checkpoints": 1,
        "average_checkpoints": 1,
        "blank_collapse_epochs": 1000,
        "sample_rate": SAMPLE_RATE,
        "system_name": "tiny",
        "noprogressbar": True,
        "max_grad_norm": 5.0,
        "skip_nonfinite_grads": True,
        "train_logger": FileTrainLogger(str(folder / "train_log.txt")),
        **overrides,
    }
    checkpointer = AtomicCheckpointer(
        str(folder / "save"),
        recoverables={
            "model": model,
            "lr_annealing": schedule,
            "counter": counter,
        },
    )
    return brain_class(
        modules={"model": model},
        opt_class=partial(torch.optim.AdamW, lr=lr, weight_decay=0.0),
        hparams=hparams,
        run_opts={"device": "cpu"},
        checkpointer=checkpointer,
        tokenizer=ToneTokenizer(),
    )
