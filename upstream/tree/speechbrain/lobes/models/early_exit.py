"""Early-exit encoders for speech recognition.

An encoder with a CTC head (an exit) after every few layers. At inference every
utterance of a batch stops at the first exit that is good enough for it, and the
layers above are not run. ``start`` makes the state below the first layer,
``advance`` runs the layers up to the next exit, ``EncoderState.select`` lets
utterances leave in between.

What an utterance gives must not depend on the batch that it is in, or exits
could not be chosen per utterance. Padded frames are therefore zeroed before
every convolution over time.

After Wright et al., arXiv 2309.09546, and Berrebbi et al., arXiv 2211.08989.
Shapes: B utterances, T frames, D width of the encoder, V tokens.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Optional

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.Branchformer import (
    BranchformerEncoderLayer,
)
from speechbrain.lobes.models.transformer.Conformer import (
    ConformerEncoderLayer,
    ConvolutionModule,
)
from speechbrain.lobes.models.transformer.TransformerASR import (
    make_transformer_src_mask,
)
from speechbrain.nnet.CNN import Conv2d


def padding_mask(lengths, frames):
    """Where the frames of a batch are padding, shape (B, frames).

    Example
    -------
    >>> padding_mask(torch.tensor([1, 3]), 3)
    tensor([[False,  True,  True],
            [False, False, False]])
    """
    return torch.arange(frames, device=lengths.device) >= lengths.unsqueeze(1)


@dataclass(frozen=True)
class EncoderState:
    """A batch between two encoder layers.

    Arguments
    ---------
    hidden : torch.Tensor
        Hidden states, shape (B, T, D). Padded frames hold anything.
    lengths : torch.Tensor
        Valid frames, shape (B,).
    rows : torch.Tensor
        Row of the original batch that every row is, shape (B,).
    depth : int
        Encoder layers run so far.
    positions : torch.Tensor, optional
        Relative position embeddings, shape (1, 2 T - 1, D).
    """

    hidden: torch.Tensor
    lengths: torch.Tensor
    rows: torch.Tensor
    depth: int
    positions: Optional[torch.Tensor] = None

    @property
    def padding_mask(self):
        """True where a frame is padding, shape (B, T)."""
        return padding_mask(self.lengths, self.hidden.shape[1])

    def select(self, keep):
        """The rows of a boolean mask, cut to the longest of them."""
        lengths = self.lengths[keep]
        frames, shorter = self.hidden.shape[1], int(lengths.max())
        positions = self.positions
        if positions is not None:
            # Distances -(T'-1) .. T'-1 out of -(T-1) .. T-1.
            positions = positions[:, frames - shorter : frames + shorter - 1]
        return replace(
            self,
            hidden=self.hidden[keep, :shorter],
            lengths=lengths,
            rows=self.rows[keep],
            positions=positions,
        )


class LayerwiseEncoder(nn.Module):
    """The walk up the layers, from exit to exit; subclasses say how it starts.

    Arguments
    ---------
    layers : list of torch.nn.Module
        All layers; those above the last exit are dropped.
    exit_layers : list of int
        Layers that an exit follows, counted from 1.
    """

    def __init__(self, layers, exit_layers):
        super().__init__()
        exit_layers = tuple(exit_layers)
        if not exit_layers or list(exit_layers) != sorted(
            set(exit_layers) & set(range(1, len(layers) + 1))
        ):
            raise ValueError(
                f"exit_layers: {list(exit_layers)} must be increasing layer "
                f"numbers between 1 and {len(layers)}."
            )
        self.exit_layers = exit_layers
        self.layers = nn.ModuleList(layers[: exit_layers[-1]])

    def start(self, wavs, wav_lens):
        """The state below the first layer.

        Arguments
        ---------
        wavs, wav_lens : torch.Tensor
            Waveforms, shape (B, samples), and relative lengths, shape (B,).

        Returns
        -------
        EncoderState
            The state at depth 0.
        """
        raise NotImplementedError

    def layer_runner(self, state):
        """A function from a layer and hidden states to hidden states."""
        raise NotImplementedError

    def advance(self, state):
        """Runs the layers up to the next exit; gives the state there."""
        target = next(k for k in self.exit_layers if k > state.depth)
        run, hidden = self.layer_runner(state), state.hidden
        for layer in self.layers[state.depth : target]:
            hidden = run(layer, hidden)
        return replace(state, hidden=hidden, depth=target)


class MultiExitEncoder(LayerwiseEncoder):
    """A Conformer, Branchformer or Transformer that can be left early.

    Arguments
    ---------
    features : LogMel
        Waveforms and relative lengths to features and frames.
    front_end : MaskedConvolutionFrontEnd
        Features and frames to subsampled features and frames.
    stack : speechbrain.lobes.models.transformer.TransformerASR.TransformerASR
        Where input projection, positional encoding and encoder layers are
        taken from. Its final norm is not used: every exit has its own.
    exit_layers : list of int
        Layers that an exit follows, counted from 1.
    feature_augment : speechbrain.augment.augmenter.Augmenter, optional
        Augmentation of the features in training.
    """

    def __init__(
        self, features, front_end, stack, exit_layers, feature_augment=None
    ):
        layers = [mask_padding_in(layer) for layer in stack.encoder.layers]
        super().__init__(layers, exit_layers)
        self.features = features
        self.front_end = front_end
        self.input_projection = stack.custom_src_module
        self.positional_encoding = getattr(stack, "positional_encoding", None)
        self.feature_augment = feature_augment
        self.attention_type = stack.attention_type
        self.causal = stack.causal

    def start(self, wavs, wav_lens):
        """Features, front-end, input projection and positions."""
        features, lengths = self.features(wavs, wav_lens)
        if self.training and self.feature_augment is not None:
            relative = lengths / features.shape[1]
            features, _ = self.feature_augment(features, relative)
        hidden, lengths = self.front_end(features, lengths)
        hidden = self.input_projection(hidden)
        positions = None
        if self.attention_type == "RelPosMHAXL":
            positions = self.positional_encoding(hidden)
        elif self.attention_type == "regularMHA":
            hidden = hidden + self.positional_encoding(hidden)
        rows = torch.arange(len(lengths), device=lengths.device)
        return EncoderState(hidden, lengths, rows, 0, positions)

    def layer_runner(self, state):
        """A layer with the masks and positions of a state."""
        mask = state.padding_mask
        src_mask = make_transformer_src_mask(state.hidden, causal=self.causal)

        def run(layer, hidden):
            """Runs one layer."""
            return layer(
                hidden,
                src_mask=src_mask,
                src_key_padding_mask=mask,
                pos_embs=state.positions,
            )[0]

        return run


class SSLEncoder(LayerwiseEncoder):
    """A pre-trained wav2vec 2.0 or HuBERT that can be left early.

    Waveforms are normalised over their true lengths, and convolutions with a
    group norm, which averages over all of the audio, run utterance by
    utterance. Transformers' masking and LayerDrop are not run.

    Arguments
    ---------
    wav2vec2 : speechbrain.integrations.huggingface.wav2vec2.Wav2Vec2
        The model whose parts are used; what is frozen stays frozen.
    exit_layers : list of int
        Layers that an exit follows, counted from 1.
    feature_augment : speechbrain.augment.augmenter.Augmenter, optional
        Augmentation of the projected features in training.
    """

    def __init__(self, wav2vec2, exit_layers, feature_augment=None):
        model = wav2vec2.model.float()
        super().__init__(model.encoder.layers, exit_layers)
        if hasattr(self.layers[0].attention, "compute_bias"):
            raise ValueError("SSLEncoder: WavLM's attention is not supported.")
        self.config = model.config
        self.normalise = wav2vec2.normalize_wav
        self.convolutions = model.feature_extractor
        # Else transformers asks for the gradient of the audio.
        self.convolutions._requires_grad = False
        self.projection = model.feature_projection
        self.positions = model.encoder.pos_conv_embed
        self.dropout = model.encoder.dropout
        # The norm of base models is below the layers. That of large ones is
        # above; exits have norms of their own, so it is kept but not run.
        norms = [model.encoder.layer_norm, nn.Identity()]
        if model.config.do_stable_layer_norm:
            norms.reverse()
        self.input_norm, self.final_norm = norms
        self.final_norm.requires_grad_(False)
        self.feature_augment = feature_augment

    @property
    def d_model(self):
        """Width of the states."""
        return self.config.hidden_size

    def start(self, wavs, wav_lens):
        """Normalises, convolves, projects and adds positions."""
        sizes = list(zip(self.config.conv_kernel, self.config.conv_stride))
        samples = (wav_lens * wavs.shape[1]).round().long()
        lengths, shortest = samples, 1
        for kernel, stride in sizes:
            lengths = (lengths - kernel) // stride + 1
        lengths = lengths.clamp(min=1)
        for kernel, stride in reversed(sizes):
            shortest = (shortest - 1) * stride + kernel
        missing = max(shortest - wavs.shape[1], 0)
        wavs = nn.functional.pad(wavs, (0, missing))
        mask = padding_mask(samples, wavs.shape[1])
        wavs = wavs.masked_fill(mask, 0.0)
        if self.normalise:
            count = samples.clamp(min=1).unsqueeze(1)
            wavs = wavs - wavs.sum(1, keepdim=True) / count
            wavs = wavs.masked_fill(mask, 0.0)
            variance = wavs.square().sum(1, keepdim=True) / count
            wavs = wavs / (variance + 1e-7).sqrt()
        if self.config.feat_extract_norm == "group":
            alone = [
                self.convolutions(wav[None, : max(count, shortest)])[0].t()
                for wav, count in zip(wavs, samples.tolist())
            ]
            hidden = pad_sequence(alone, batch_first=True)
        else:
            hidden = self.convolutions(wavs).transpose(1, 2)
        hidden = self.projection(hidden)
        if isinstance(hidden, tuple):  # beside what quantisers read
            hidden = hidden[0]
        if self.training and self.feature_augment is not None:
            relative = lengths / hidden.shape[1]
            hidden, _ = self.feature_augment(hidden, relative)
        mask = padding_mask(lengths, hidden.shape[1])
        hidden = hidden.masked_fill(mask.unsqueeze(-1), 0.0)
        hidden = self.input_norm(hidden + self.positions(hidden))
        rows = torch.arange(len(lengths), device=lengths.device)
        return EncoderState(self.dropout(hidden), lengths, rows, 0)

    def layer_runner(self, state):
        """A layer with the masks of a state."""
        masks, mask = {}, state.padding_mask
        if mask.any():
            added = torch.zeros_like(mask, dtype=state.hidden.dtype)
            added = added.masked_fill(mask, torch.finfo(added.dtype).min)
            added = added[:, None, None].expand(-1, 1, mask.shape[1], -1)
            masks = {"attention_mask": added}

        def run(layer, hidden):
            """Runs one layer."""
            out = layer(hidden, **masks)
            return out[0] if isinstance(out, tuple) else out

        return run


class LogMel(nn.Module):
    """Log-mel filterbanks, normalised over the valid frames.

    Arguments
    ---------
    compute_features : speechbrain.lobes.features.Fbank
        The filterbank.
    normalize : speechbrain.processing.features.InputNormalization, optional
        Normalisation of mean and variance.
    """

    def __init__(self, compute_features, normalize=None):
        super().__init__()
        self.compute_features = compute_features
        self.normalize = normalize
        self.hop_samples = compute_features.compute_STFT.hop_length

    def forward(self, wavs, wav_lens):
        """Features, shape (B, T, F), and valid frames, shape (B,)."""
        samples = (wav_lens * wavs.shape[1]).round().long()
        mask = padding_mask(samples, wavs.shape[1])
        features = self.compute_features(wavs.masked_fill(mask, 0.0))
        # One frame per hop, and one for the centred window at the start.
        lengths = samples // self.hop_samples + 1
        if self.normalize is not None:
            # Half a frame less: InputNormalization rounds up after multiplying
            # with T again, and would count a padded frame at times.
            relative = (lengths - 0.5) / features.shape[1]
            features = self.normalize(features, relative)
        return features, lengths


class MaskedConvolutionFrontEnd(nn.Module):
    """ConvolutionFrontEnd with exact lengths that does not see padding.

    Arguments
    ---------
    input_shape : tuple
        (batch, time, features) of the input; batch and time may be None.
    **kwargs
        Arguments of ConvolutionFrontEnd except ``residuals``, ``padding`` and
        ``conv_module``, which decide the lengths and are fixed.
    """

    def __init__(self, input_shape, **kwargs):
        super().__init__()
        self.blocks = ConvolutionFrontEnd(
            input_shape=input_shape,
            residuals=[False] * kwargs.get("num_blocks", 3),
            conv_module=partial(Conv2d, padding_mode="constant"),
            **kwargs,
        )

    def forward(self, features, lengths):
        """From features, (B, T, F), to states, (B, T', D), and their frames."""
        hidden = features
        for block in self.blocks.children():
            for layer in block.convs.children():
                if isinstance(layer, Conv2d):
                    mask = padding_mask(lengths, hidden.shape[1])
                    shape = mask.shape + (1,) * (hidden.ndim - 2)
                    hidden = hidden.masked_fill(mask.view(shape), 0.0)
                    lengths = (lengths - 1) // layer.stride[0] + 1
                hidden = layer(hidden)
        return hidden.flatten(start_dim=2), lengths


class MaskedConvolutionModule(ConvolutionModule):
    """Conformer's convolution module, padding zeroed before the convolution.

    It uses the parts of a ConvolutionModule; parameters keep their names.
    """

    def __init__(self, module):
        nn.Module.__init__(self)
        self.causal, self.padding = module.causal, module.padding
        for name, child in module.named_children():
            setattr(self, name, child)

    def forward(self, x, mask=None, dynchunktrain_config=None):
        """Applies the module to ``x``, shape (B, T, D); mask is (B, T, 1)."""
        if dynchunktrain_config is not None:
            raise ValueError("Exits are not trained on chunks.")
        out = self.bottleneck(self.layer_norm(x).transpose(1, 2))
        if mask is not None:
            out = out.masked_fill(mask.transpose(1, 2), 0.0)
        out = self.conv(out)
        if self.causal:
            out = out[..., : -self.padding]
        out = self.after_conv(out.transpose(1, 2))
        return out if mask is None else out.masked_fill(mask, 0.0)


class MaskedBranchformerLayer(BranchformerEncoderLayer):
    """Branchformer layer whose convolution branch does not see padding.

    It uses the parts of a BranchformerEncoderLayer, whose parameters keep
    their names.
    """

    def __init__(self, layer):
        nn.Module.__init__(self)
        for name, child in layer.named_children():
            setattr(self, name, child)
        # Reflection mirrors whatever follows the utterance in its batch.
        self.convolution_branch.csgu.conv.padding_mode = "constant"

    def forward(
        self, x, src_mask=None, src_key_padding_mask=None, pos_embs=None
    ):
        """Runs the layer on ``x``, shape (B, T, D)."""
        x1 = self.norm_mhsa(x)
        x1, attention = self.mha_layer(
            *(x1, x1, x1),
            attn_mask=src_mask,
            key_padding_mask=src_key_padding_mask,
            pos_embs=pos_embs,
        )
        branch, gate = self.convolution_branch, self.convolution_branch.csgu
        x2 = branch.activation(branch.pre_channel_proj(self.norm_conv(x)))
        kept, gated = x2.chunk(2, dim=-1)
        gated = gate.norm(gated)
        if src_key_padding_mask is not None:
            mask = src_key_padding_mask.unsqueeze(-1)
            gated = gated.masked_fill(mask, 0.0)
        gated = gate.conv(gated)
        if gate.use_linear_after_conv:
            gated = gate.linear(gated)
        x2 = gate.dropout(gate.activation(gated) * kept)
        branches = [self.dropout(x1)]
        branches.append(self.dropout(branch.post_channel_proj(x2)))
        merged = self.merge_proj(torch.cat(branches, dim=-1))
        return x + self.dropout(merged), attention


def mask_padding_in(layer):
    """The layer, with the same parameters, that does not see padding."""
    if isinstance(layer, ConformerEncoderLayer):
        module = MaskedConvolutionModule(layer.convolution_module)
        layer.convolution_module = module
    elif isinstance(layer, BranchformerEncoderLayer):
        return MaskedBranchformerLayer(layer)
    return layer


@dataclass(frozen=True)
class ExitOutput:
    """What one exit says about a batch.

    Arguments
    ---------
    log_probs : torch.Tensor
        Log-probabilities of the tokens, shape (B, T, V).
    lengths : torch.Tensor
        Valid frames, shape (B,).
    layer : int
        Encoder layer that the exit follows.
    blank_index : int
        Index of CTC's blank token.
    """

    log_probs: torch.Tensor
    lengths: torch.Tensor
    layer: int
    blank_index: int = 0

    @property
    def relative_lengths(self):
        """Lengths relative to the padded one, shape (B,)."""
        return self.lengths / self.log_probs.shape[1]

    def select(self, keep):
        """The rows of a boolean mask, cut to the longest of them."""
        lengths = self.lengths[keep]
        log_probs = self.log_probs[keep, : int(lengths.max())]
        return replace(self, log_probs=log_probs, lengths=lengths)


class CTCHeads(nn.Module):
    """One CTC head per exit: norm, projection, log-softmax.

    Arguments
    ---------
    exit_layers : list of int
        The encoder's exit layers; there is one head for each.
    d_model : int
        Width of the encoder.
    vocab_size : int
        Tokens, blank included.
    tied : bool
        Whether the exits share the projection; norms are an exit's own.
    dropout : float
        Dropout before the projection.
    blank_index : int
        Index of CTC's blank token.
    """

    def __init__(
        self,
        exit_layers,
        d_model,
        vocab_size,
        tied=False,
        dropout=0.0,
        blank_index=0,
    ):
        super().__init__()
        self.tied = tied
        self.blank_index = blank_index
        self.norms = nn.ModuleList([nn.LayerNorm(d_model) for _ in exit_layers])
        projections = 1 if tied else len(exit_layers)
        self.projections = nn.ModuleList(
            [nn.Linear(d_model, vocab_size) for _ in range(projections)]
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, exit, state):
        """Reads an exit, counted from 1.

        Log-probabilities are in fp32, whatever the autocast type is: CTC and
        every criterion sum many of them.
        """
        projection = self.projections[0 if self.tied else exit - 1]
        read = self.dropout(self.norms[exit - 1](state.hidden))
        log_probs = torch.log_softmax(projection(read).float(), dim=-1)
        return ExitOutput(
            log_probs, state.lengths, state.depth, self.blank_index
        )


class EarlyExitModel(nn.Module):
    """An encoder with a head at every exit; the one module that DDP wraps.

    Arguments
    ---------
    encoder : LayerwiseEncoder
        The layer-wise encoder.
    heads : CTCHeads
        One head per exit.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.lobes.models.transformer.TransformerASR import (
    ...     TransformerASR,
    ... )
    >>> front_end = MaskedConvolutionFrontEnd(
    ...     (None, None, 40), num_blocks=1, out_channels=[4], strides=[4]
    ... )
    >>> stack = TransformerASR(
    ...     tgt_vocab=9,
    ...     input_size=40,
    ...     d_model=16,
    ...     nhead=2,
    ...     num_encoder_layers=4,
    ...     num_decoder_layers=0,
    ...     encoder_module="conformer",
    ...     attention_type="RelPosMHAXL",
    ...     normalize_before=True,
    ...     causal=False,
    ... )
    >>> encoder = MultiExitEncoder(
    ...     LogMel(Fbank(n_mels=40)), front_end, stack, exit_layers=[2, 4]
    ... )
    >>> model = EarlyExitModel(encoder, CTCHeads([2, 4], 16, 9)).eval()
    >>> wavs, wav_lens = torch.rand(2, 8000), torch.tensor([1.0, 0.5])
    >>> [output.layer for output in model(wavs, wav_lens)]
    [2, 4]
    >>> decisions = model.decide(wavs, wav_lens, "entropy", -float("inf"))
    >>> [exit for exit, log_probs in decisions]
    [1, 1]
    """

    def __init__(self, encoder, heads):
        super().__init__()
        if len(encoder.exit_layers) != len(heads.norms):
            raise ValueError("exit_layers differ between encoder and heads.")
        self.encoder = encoder
        self.heads = heads

    @property
    def exit_layers(self):
        """Layers that an exit follows."""
        return self.encoder.exit_layers

    def step(self, state):
        """Runs to the next exit; gives the state and the ExitOutput there."""
        state = self.encoder.advance(state)
        exit = self.exit_layers.index(state.depth) + 1
        return state, self.heads(exit, state)

    def forward(self, wavs, wav_lens):
        """All exits of a batch of waveforms, a list of ExitOutput."""
        state, outputs = self.encoder.start(wavs, wav_lens), []
        for _ in self.exit_layers:
            state, output = self.step(state)
            outputs.append(output)
        return outputs

    @torch.no_grad()
    def decide(self, wavs, wav_lens, criterion, threshold):
        """Lets every utterance stop at the first exit that is good enough.

        Utterances that stop leave the batch; no layer runs without any.

        Arguments
        ---------
        wavs, wav_lens : torch.Tensor
            Waveforms, shape (B, samples), and relative lengths, shape (B,).
        criterion : str
            One of ``CRITERIA``.
        threshold : float
            An utterance stops where its score reaches it, and at the last
            exit. A bound of 0.1 on the entropy is a threshold of -0.1.

        Returns
        -------
        list of tuple
            For every utterance the exit where it stopped, counted from 1, and
            the log-probabilities there, shape (T, V), without padding.
        """
        state, outputs = self.encoder.start(wavs, wav_lens), []
        decisions = [None] * len(wavs)
        for exit in range(1, len(self.exit_layers) + 1):
            state, output = self.step(state)
            outputs.append(output)
            stop = exit_scores(criterion, outputs).double() >= threshold
            if exit == len(self.exit_layers):
                stop = torch.ones_like(stop)
            for place in stop.nonzero().flatten().tolist():
                log_probs = output.log_probs[place, : output.lengths[place]]
                row = int(state.rows[place])
                decisions[row] = exit, log_probs
            if stop.all():
                break
            if stop.any():
                state = state.select(~stop)
                outputs = [each.select(~stop) for each in outputs]
        return decisions


def _mean_over_frames(values, output, without):
    """Mean of (B, T) over the frames of utterances that are not all blank.

    Early exits that have learnt nothing emit blanks alone, and are sure of
    them. That is no readiness: such utterances get ``without``.
    """
    frames = ~padding_mask(output.lengths, values.shape[1])
    emitting = output.log_probs.argmax(-1) != output.blank_index
    frames = frames & (frames & emitting).any(1, keepdim=True)
    count = frames.sum(1)
    mean = torch.where(frames, values, 0.0).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, without)


def entropy(output):
    """Frame entropy of an exit, ``-1/(T V) sum_t sum_v p ln p``, shape (B,).

    Example
    -------
    >>> probs = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    >>> output = ExitOutput(probs.log(), torch.tensor([2]), layer=2)
    >>> round(entropy(output).item(), 4)
    0.1733
    """
    vocab = output.log_probs.shape[-1]
    log_probs = output.log_probs.clamp(min=torch.finfo(torch.float32).min)
    values = -(output.log_probs.exp() * log_probs).sum(-1) / vocab
    return _mean_over_frames(values, output, math.log(vocab) / vocab)


def max_prob(output):
    """Mean over an exit's frames of the largest probability, shape (B,)."""
    return _mean_over_frames(output.log_probs.amax(-1).exp(), output, 0.0)


def cross_entropy(output, earlier):
    """Cross-entropy of exit k to an earlier j, ``-1/T sum p_j ln p_k``."""
    least = math.log(torch.finfo(torch.float32).tiny)
    log_probs = output.log_probs.clamp(min=least)
    values = -(earlier.log_probs.exp() * log_probs).sum(-1)
    return _mean_over_frames(values, output, -least)


def patience(outputs, exits=2):
    """Waits until successive exits agree with those before.

    A window holds the last exits. A new exit joins it if its distance (the
    cross-entropy) to every member is at most tau, else it takes the place of
    the oldest; at ``exits + 1`` members the rule stops (Berrebbi et al.). The
    score is -tau for the smallest tau with which it has stopped.

    Arguments
    ---------
    outputs : list of ExitOutput
        Exits 1 to k.
    exits : int
        Exits that must agree with those before.

    Returns
    -------
    torch.Tensor
        Scores at exit k, shape (B,).
    """
    # least[m]: the smallest tau for a window of m + 1 members
    never = torch.full_like(outputs[0].lengths, math.inf, dtype=torch.float64)
    least = [-never] + [never] * exits
    for k in range(1, len(outputs)):
        reached, worst = list(least), -never
        for lag in range(1, min(exits, k) + 1):
            distance = cross_entropy(outputs[k], outputs[k - lag]).double()
            worst = torch.maximum(worst, distance)
            joined = torch.maximum(least[lag - 1], worst)
            reached[lag] = torch.minimum(least[lag], joined)
        least = reached
    return -least[exits]


CRITERIA = {
    "entropy": lambda outputs: -entropy(outputs[-1]),
    "max_prob": lambda outputs: max_prob(outputs[-1]),
    "patience": patience,
}


def exit_scores(criterion, outputs):
    """Scores at exit k of the outputs 1 to k, higher for more ready, (B,)."""
    if criterion not in CRITERIA:
        raise ValueError(f"{criterion} is not one of {', '.join(CRITERIA)}.")
    return CRITERIA[criterion](outputs)
