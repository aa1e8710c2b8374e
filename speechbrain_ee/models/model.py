"""The multi-exit model: an encoder and what is read off it.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import CTCHeads, ExitOutput
from speechbrain_ee.models.layerwise import LayerwiseEncoder
from speechbrain_ee.models.state import EncoderState


class EarlyExitModel(nn.Module):
    """An encoder with a head at every exit; the one module that DDP wraps.

    Arguments
    ---------
    encoder : LayerwiseEncoder
        The layer-wise encoder.
    heads : CTCHeads
        One head per exit.
    attention : AttentionHeads, optional
        Decoders beside the CTC heads. They never run in :meth:`step`: an
        exit is chosen first, or decoding is asked for.
    """

    def __init__(
        self,
        encoder: LayerwiseEncoder,
        heads: CTCHeads,
        attention: AttentionHeads | None = None,
    ):
        super().__init__()
        for each in (heads, attention):
            if each is not None and encoder.num_exits != each.num_exits:
                raise InputError(
                    f"exit_layers: the encoder has {encoder.num_exits} exits "
                    f"and there are {each.num_exits} heads; build both from "
                    "the same `exit_layers`."
                )
        if attention is not None and attention.vocab_size != heads.vocab_size:
            raise InputError(
                f"output_neurons: the CTC heads have {heads.vocab_size} "
                f"tokens and the attention heads {attention.vocab_size}; "
                "build both from the same `output_neurons`."
            )
        self.encoder = encoder
        self.heads = heads
        self.attention = attention

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers that an exit follows."""
        return self.encoder.exit_layers

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """The state below the first layer; see the encoder."""
        return self.encoder.start(wavs, wav_lens)

    def step(self, state: EncoderState) -> tuple[EncoderState, ExitOutput]:
        """Run to the next exit and read it.

        Arguments
        ---------
        state : EncoderState
            A state below the last exit.

        Returns
        -------
        state : EncoderState
            The state at that exit.
        output : ExitOutput
            What the exit says.
        """
        state = self.encoder.advance(state)
        exit = self.exit_layers.index(state.depth) + 1
        return state, self.heads(exit, state)

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor,
        tokens_BS: Tensor | None = None,
        exits: int | None = None,
    ) -> list[ExitOutput]:
        """All exits of a batch, or the first ones.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, shape (B, samples).
        wav_lens : torch.Tensor
            Lengths relative to the longest, shape (B,).
        tokens_BS : torch.Tensor, optional
            Transcripts behind the token for their beginning, shape (B, S);
            the attention heads predict their tokens.
        exits : int, optional
            How many exits are wanted; no layer and no head above is run.
            None: all.

        Returns
        -------
        list of ExitOutput
            One output per exit, from the first to the last.
        """
        state = self.start(wavs, wav_lens)
        outputs = []
        for exit, _ in enumerate(self.exit_layers[:exits], start=1):
            state, output = self.step(state)
            if tokens_BS is not None and self.attention is not None:
                predicted_BSV = self.attention(exit, output, tokens_BS)
                output = replace(output, attention_BSV=predicted_BSV)
            outputs.append(output)
        return outputs

    def truncated(self, exits: int) -> "EarlyExitModel":
        """The model that ends at an exit, sharing its parameters.

        Arguments
        ---------
        exits : int
            How many exits stay, 1 to the number of exits.

        Returns
        -------
        EarlyExitModel
            The smaller model: no layer and no head above the exit.
        """
        if not 1 <= exits <= len(self.exit_layers):
            raise InputError(
                f"exit: {exits} is not an exit of this model; it has the "
                f"exits 1 to {len(self.exit_layers)}."
            )
        attention = self.attention
        if attention is not None:
            attention = attention.truncated(exits)
        return EarlyExitModel(
            self.encoder.truncated(exits),
            self.heads.truncated(exits),
            attention,
        ).train(self.training)
