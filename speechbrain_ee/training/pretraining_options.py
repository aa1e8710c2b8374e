"""What decides how a pre-trained backbone comes out.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

from speechbrain_ee.errors import InputError

# First convolution by frame shift in ms: kernel and stride in samples.
FIRST_CONVOLUTION = {20: (10, 5), 40: (20, 10)}
KERNELS = (3, 3, 3, 3, 2, 2)  # of the others, whose stride is 2
POSITION_GROUPS = 16
MAY_BE_ZERO = ("seed", "seen_weight", "warmup_share", "weight_decay")


@dataclass(frozen=True)
class PretrainingOptions:
    """What decides how a backbone comes out.

    Arguments
    ---------
    layers, width, heads, d_ffn : int
        Transformer layers, their width, attention heads and inner width.
    conv_dim : tuple of int
        Channels of the seven convolutions.
    frame_ms : int
        Shift between frames: 20 as wav2vec2, or 40 at half the cost.
    codebooks, codes, code_dim : int
        How many codebooks, codes in each, dimensions of a code.
    mask_share : float
        Share of the frames that are hidden.
    mask_s : float
        Length of a hidden stretch, in seconds.
    seen_weight : float
        Weight of the loss of frames that are not hidden, as in HuBERT: 0 is
        BEST-RQ, more begins to learn sooner.
    batch_s, crop_s : float
        Audio of a batch, and the most of one utterance, in seconds.
    lr, warmup_share, weight_decay, max_grad_norm : float
        Highest learning rate; share of the steps until there, from where it
        falls to zero in a straight line; AdamW's decay; clipping.
    steps : int
        Optimiser steps.
    seed : int
        Of weights, codes, batches and masks.
    precision : str
        fp32 or bf16.

    Raises
    ------
    InputError
        If a value cannot be used.
    """

    layers: int = 6
    width: int = 192
    heads: int = 4
    d_ffn: int = 768
    conv_dim: tuple[int, ...] = (48, 64, 96, 128, 128, 192, 192)
    frame_ms: int = 40
    codebooks: int = 4
    codes: int = 256
    code_dim: int = 16
    mask_share: float = 0.45
    mask_s: float = 0.24
    seen_weight: float = 0.0
    batch_s: float = 80.0
    crop_s: float = 8.0
    lr: float = 0.001
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    steps: int = 2000
    seed: int = 1986
    precision: str = "fp32"

    def __post_init__(self):
        for name, value in vars(self).items():
            least = 0 if name in MAY_BE_ZERO else 1e-9
            numbers = value if isinstance(value, tuple) else (value,)
            if name != "precision" and not all(n >= least for n in numbers):
                kind = "negative" if name in MAY_BE_ZERO else "not positive"
                raise InputError(f"--{name}: {value} is {kind}.")
        rules = {
            "conv_dim": (len(self.conv_dim) == 7, "give seven numbers"),
            "frame_ms": (self.frame_ms in FIRST_CONVOLUTION, "give 20 or 40"),
            "heads": (
                self.width % self.heads == 0,
                f"must divide --width, which is {self.width}",
            ),
            "width": (
                self.width % POSITION_GROUPS == 0,
                f"must be a multiple of {POSITION_GROUPS}",
            ),
            "mask_share": (self.mask_share <= 0.8, "must be at most 0.8"),
            "warmup_share": (self.warmup_share < 1, "must be below 1"),
            "precision": (
                self.precision in ("fp32", "bf16"),
                "give fp32 or bf16",
            ),
            "crop_s": (
                self.crop_s >= self.shortest_s,
                f"must be {self.shortest_s:g} or more, four times --mask_s",
            ),
            "batch_s": (
                self.batch_s >= self.crop_s,
                f"must not be below --crop_s, which is {self.crop_s:g}",
            ),
        }
        for name, (kept, rule) in rules.items():
            if not kept:
                raise InputError(f"--{name}: {getattr(self, name)}: {rule}.")

    @property
    def mask_frames(self) -> int:
        """Frames of a hidden stretch."""
        return max(1, round(1000 * self.mask_s / self.frame_ms))

    @property
    def shortest_s(self) -> float:
        """Shortest utterance that can be masked, in seconds."""
        return 4 * self.mask_frames * self.frame_ms / 1000

    @property
    def convolutions(self) -> tuple[tuple[int, int], ...]:
        """Kernel and stride of every convolution, in samples."""
        others = tuple((kernel, 2) for kernel in KERNELS)
        return (FIRST_CONVOLUTION[self.frame_ms], *others)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 1."""
        warmup = max(1, round(self.warmup_share * self.steps))
        if step <= warmup:
            return self.lr * step / warmup
        return self.lr * (self.steps - step) / max(1, self.steps - warmup)
