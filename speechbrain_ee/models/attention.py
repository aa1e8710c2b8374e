"""Attention heads: decoders that read the encoder at its exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.decoder import DecoderState, TokenDecoder
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.layerwise import shared_copy

DECODER_KINDS = ("shared", "separate")


class AttentionHeads(nn.Module):
    """One attention decoder for all exits, or one for each.

    Every exit has a norm of its own in front of the decoder, because the
    scale of the states differs from depth to depth. A shared decoder is told
    where it reads by that norm and by an embedding of the exit, added to its
    tokens (zero before training).

    Arguments
    ---------
    exit_layers : list of int
        The encoder's exit layers.
    d_model : int
        Width of the encoder.
    vocab_size : int
        Tokens; the CTC heads have the same.
    bos_index : int
        Token that begins every transcript.
    eos_index : int
        Token that ends it.
    decoders : str
        ``shared`` or ``separate``, the latter with one decoder per exit as in
        Wright et al. (arXiv 2309.09546).
    num_layers : int
        Layers of a decoder.
    nhead : int
        Its attention heads.
    d_ffn : int
        Width of its feed-forward layers.
    dropout : float
        Dropout in training.

    Example
    -------
    >>> heads = AttentionHeads([2, 4], d_model=8, vocab_size=7, nhead=2)
    >>> output = ExitOutput(
    ...     log_probs_BTV=torch.zeros(2, 5, 7),
    ...     lengths_B=torch.tensor([5, 3]),
    ...     layer=4,
    ...     hidden_BTD=torch.rand(2, 5, 8),
    ... )
    >>> heads(2, output, torch.tensor([[1, 4, 3], [1, 6, 0]])).shape
    torch.Size([2, 3, 7])
    """

    def __init__(
        self,
        exit_layers: Sequence[int],
        d_model: int,
        vocab_size: int,
        bos_index: int = 1,
        eos_index: int = 2,
        decoders: str = "shared",
        num_layers: int = 4,
        nhead: int = 4,
        d_ffn: int = 1024,
        dropout: float = 0.1,
    ):
        super().__init__()
        if decoders not in DECODER_KINDS:
            raise InputError(
                f"attention_decoders: {decoders!r} is unknown; use one of "
                f"{', '.join(DECODER_KINDS)}."
            )
        special = (bos_index, eos_index)
        if not 0 < min(special) < max(special) < vocab_size:
            raise InputError(
                f"bos_index, eos_index: {bos_index} and {eos_index} must be "
                f"different tokens between 1 and {vocab_size - 1}; 0 is "
                "CTC's blank. The recipes use 1 and 2."
            )
        exits = len(exit_layers)
        self.shared = decoders == "shared"
        self.bos_index = bos_index
        self.eos_index = eos_index
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(exits))
        self.decoders = nn.ModuleList(
            TokenDecoder(vocab_size, d_model, num_layers, nhead, d_ffn, dropout)
            for _ in range(1 if self.shared else exits)
        )
        # A decoder of its own need not be told its exit.
        self.places = nn.ParameterList(
            torch.zeros(d_model) for _ in exit_layers if self.shared
        )

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        return len(self.norms)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.decoders[0].output.out_features

    def decoder(self, exit: int) -> TokenDecoder:
        """The decoder of an exit, counted from 1."""
        return self.decoders[0 if self.shared else exit - 1]

    def forward(
        self, exit: int, output: ExitOutput, tokens_BS: Tensor
    ) -> Tensor:
        """Predict every next token of the transcripts (teacher forcing).

        Arguments
        ---------
        exit : int
            Number of the exit, from 1.
        output : ExitOutput
            What was read there, hidden states included.
        tokens_BS : torch.Tensor
            The token for the beginning and the transcripts, padded, (B, S).

        Returns
        -------
        torch.Tensor
            Log-probabilities in fp32, shape (B, S, V).
        """
        logits_BSV = self.decoder(exit)(
            tokens_BS,
            self.norms[exit - 1](output.hidden_BTD),
            output.lengths_B,
            self._place(exit),
        )
        return torch.log_softmax(logits_BSV.float(), dim=-1)

    def start(self, exit: int, output: ExitOutput) -> DecoderState:
        """Prepare to decode a batch at an exit, token by token.

        Arguments
        ---------
        exit : int
            Number of the exit, from 1.
        output : ExitOutput
            What was read there, hidden states included.

        Returns
        -------
        DecoderState
            For :meth:`~speechbrain_ee.models.decoder.TokenDecoder.extend` of
            :meth:`decoder`.
        """
        return self.decoder(exit).start(
            self.norms[exit - 1](output.hidden_BTD),
            output.lengths_B,
            self._place(exit),
        )

    def truncated(self, exits: int) -> "AttentionHeads":
        """What the first exits need, sharing its parameters.

        Arguments
        ---------
        exits : int
            How many exits stay.

        Returns
        -------
        AttentionHeads
            Heads of the same class for the exits 1 to ``exits``.
        """
        # A shared decoder is the only one of its list, so it always stays.
        return shared_copy(self, norms=exits, decoders=exits, places=exits)

    def _place(self, exit: int) -> Tensor | float:
        return self.places[exit - 1] if self.shared else 0.0
