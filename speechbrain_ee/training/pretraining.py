"""Self-supervised pre-training of a small backbone, by masked prediction.

The model is wav2vec2's: convolutions over the samples, transformer layers on
top. It learns as BEST-RQ does (Chiu et al., 2022, arXiv 2202.01855): random
projections name every frame of cepstra by the nearest of a few hundred
random codes, and the model says the codes of frames that it did not
see. The codes are fixed, so there is nothing that could collapse but the
predictions, and those are watched.

Axes: B utterances, S samples, T frames, C codebooks, V codes, M masked frames.

Authors
 * The speechbrain-ee contributors 2026
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from speechbrain.lobes.features import MFCC
from speechbrain.lobes.models.wav2vec import compute_mask
from speechbrain.nnet.quantisers import RandomProjectionQuantizer
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.pretraining_options import (
    POSITION_GROUPS,
    PretrainingOptions,
)

SAMPLE_RATE = 16000
# Cepstra are less alike than mel bands, so more of the codes are used.
N_MFCC = 13
N_MELS = 40
CEPSTRA_HOP_MS = 10


def make_backbone(options: PretrainingOptions) -> nn.Module:
    """A wav2vec2 of random weights.

    Arguments
    ---------
    options : PretrainingOptions
        Uses the sizes.

    Returns
    -------
    torch.nn.Module
        transformers' ``Wav2Vec2Model``, norms before the layers, since that
        bears a large learning rate.

    Raises
    ------
    InputError
        If transformers is missing.
    """
    try:
        from transformers import Wav2Vec2Config, Wav2Vec2Model
    except ImportError as error:
        raise InputError(
            f"pre-training needs the package transformers ({error}); install "
            "the extra `ssl`: pip install 'speechbrain-ee[ssl]'."
        ) from error
    dropouts = "hidden attention activation feat_proj final feat_quantizer"
    config = Wav2Vec2Config(
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=options.d_ffn,
        conv_dim=options.conv_dim,
        conv_kernel=[kernel for kernel, _ in options.convolutions],
        conv_stride=[stride for _, stride in options.convolutions],
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=POSITION_GROUPS,
        do_stable_layer_norm=True,
        layerdrop=0.0,
        # Epochs are few: there is nothing to regularise.
        **{f"{name}_dropout": 0.0 for name in dropouts.split()},
    )
    return Wav2Vec2Model(config)


class MaskedPrediction(nn.Module):
    """A backbone and what it learns: the codes of the frames it cannot see.

    Arguments
    ---------
    options : PretrainingOptions
        Sizes, codes, masks.

    Example
    -------
    >>> options = PretrainingOptions(layers=1, width=16, d_ffn=16)
    >>> loss, _ = MaskedPrediction(options)(torch.randn(2, 16000))
    >>> bool(loss > 0)
    True
    """

    def __init__(self, options: PretrainingOptions):
        super().__init__()
        self.options = options
        self.stack = options.frame_ms // CEPSTRA_HOP_MS
        self.backbone = make_backbone(options)
        self.predictor = nn.Linear(
            options.width, options.codebooks * options.codes
        )
        self.cepstra = MFCC(
            deltas=False,
            context=False,
            sample_rate=SAMPLE_RATE,
            n_mels=N_MELS,
            n_mfcc=N_MFCC,
        )
        self.quantisers = nn.ModuleList(
            RandomProjectionQuantizer(
                self.stack * N_MFCC, options.code_dim, options.codes
            )
            for _ in range(options.codebooks)
        )

    def forward(self, wavs_BS: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Hide stretches of every utterance, predict, compare.

        Arguments
        ---------
        wavs_BS : torch.Tensor
            Waveforms without padding, shape (B, S).

        Returns
        -------
        loss : torch.Tensor
            Mean cross-entropy over masked frames and codebooks, in nats;
            added to it, that over the others, weighted.
        facts : dict of str to torch.Tensor
            ``masked_loss`` without that; of masked frames ``predicted_MC``,
            ``targets_MC``, ``copied_MC`` (codes of the nearest frame seen).
        """
        targets_BTC = self.targets(wavs_BS)
        batch, frames = targets_BTC.shape[:2]
        mask_BT = torch.from_numpy(
            compute_mask(
                (batch, frames),
                [frames] * batch,
                self.options.mask_share,
                self.options.mask_frames,
            )
        ).to(wavs_BS.device)
        # As transformers' feature extractor does it.
        mean = wavs_BS.mean(1, keepdim=True)
        variance = wavs_BS.var(1, keepdim=True, unbiased=False)
        with self._precision(wavs_BS.device.type):
            hidden_BTD = self.backbone(
                (wavs_BS - mean) / (variance + 1e-7).sqrt(),
                mask_time_indices=mask_BT,
            ).last_hidden_state
            hidden_MD, targets_MC = hidden_BTD[mask_BT], targets_BTC[mask_BT]
            logits_MCV = self._logits(hidden_MD)
            loss = nn.functional.cross_entropy(
                logits_MCV.flatten(0, 1), targets_MC.flatten()
            )
        facts = {
            "masked_loss": loss.detach(),
            "predicted_MC": logits_MCV.detach().argmax(-1),
            "targets_MC": targets_MC,
            "copied_MC": nearest_seen(targets_BTC, mask_BT)[mask_BT],
        }
        if self.options.seen_weight > 0:
            with self._precision(wavs_BS.device.type):
                logits = self._logits(hidden_BTD[~mask_BT]).flatten(0, 1)
                seen_loss = nn.functional.cross_entropy(
                    logits, targets_BTC[~mask_BT].flatten()
                )
            loss = loss + self.options.seen_weight * seen_loss
        return loss, facts

    @torch.no_grad()
    def targets(self, wavs_BS: Tensor) -> Tensor:
        """Codes of every frame.

        Arguments
        ---------
        wavs_BS : torch.Tensor
            Waveforms, shape (B, S).

        Returns
        -------
        torch.Tensor
            Shape (B, T, C).
        """
        cepstra = self.cepstra(wavs_BS)
        cepstra = cepstra - cepstra.mean(1, keepdim=True)
        cepstra = cepstra / (cepstra.std(1, keepdim=True) + 1e-5)
        frames = wavs_BS.shape[1]
        for kernel, stride in self.options.convolutions:
            frames = (frames - kernel) // stride + 1
        # A frame's samples are centred on those of its features from the
        # second on: windows of the features are centred on multiples of 10 ms.
        cepstra = cepstra[:, 1 : 1 + frames * self.stack]
        stacked = cepstra.reshape(len(cepstra), frames, -1)
        return torch.stack([each(stacked) for each in self.quantisers], -1)

    def _logits(self, hidden_MD: Tensor) -> Tensor:
        """Logits of every codebook, shape (M, C, V)."""
        sizes = (self.options.codebooks, self.options.codes)
        return self.predictor(hidden_MD).float().unflatten(-1, sizes)

    def _precision(self, device: str) -> AbstractContextManager[Any]:
        enabled = self.options.precision == "bf16"
        return torch.autocast(device, torch.bfloat16, enabled=enabled)


def nearest_seen(codes_BTC: Tensor, mask_BT: Tensor) -> Tensor:
    """For every frame the codes of the nearest one that is not masked.

    Arguments
    ---------
    codes_BTC : torch.Tensor
        Codes, shape (B, T, C).
    mask_BT : torch.Tensor
        True where a frame is masked, shape (B, T).

    Returns
    -------
    torch.Tensor
        Shape (B, T, C); of two at equal distance the earlier.

    Example
    -------
    >>> codes = torch.tensor([[[5], [6], [7], [8]]])
    >>> mask = torch.tensor([[False, True, True, False]])
    >>> nearest_seen(codes, mask).flatten().tolist()
    [5, 5, 8, 8]
    """
    frames = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    distance_TT = (frames[:, None] - frames).abs()
    far_BTT = distance_TT + len(frames) * mask_BT[:, None, :]
    nearest_BT = far_BTT.argmin(-1)
    return torch.take_along_dim(codes_BTC, nearest_BT.unsqueeze(-1), 1)
