"""The multi-exit model: an encoder and what is read off it.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import CTCHeads, ExitOutput, Head
from speechbrain_ee.models.layerwise import LayerwiseEncoder, shared_copy
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
        self.encoder = encoder
        self.heads = heads
        self.attention = attention
        for each in self.every_head.values():
            if encoder.num_exits != each.num_exits:
                raise InputError(
                    f"exit_layers: the encoder has {encoder.num_exits} exits "
                    f"and there are {each.num_exits} heads; build both from "
                    "the same `exit_layers`."
                )
            if each.vocab_size != heads.vocab_size:
                raise InputError(
                    f"output_neurons: the CTC heads have {heads.vocab_size} "
                    f"tokens and the attention heads {each.vocab_size}; "
                    "build both from the same `output_neurons`."
                )

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers that an exit follows."""
        return self.encoder.exit_layers

    @property
    def every_head(self) -> dict[str, Head]:
        """The CTC heads and those beside them, by attribute."""
        return {
            name: part
            for name, part in self.named_children()
            if name != "encoder" and hasattr(part, "truncated")
        }

    def start(self, wavs: Tensor, wav_lens: Tensor) -> EncoderState:
        """The state below the first layer; see the encoder."""
        return self.encoder.start(wavs, wav_lens)

    def step(self, state: EncoderState) -> tuple[EncoderState, ExitOutput]:
        """Run to the next exit and read it.

        Whoever runs the model runs this: training, a teacher, evaluation,
        live inference and export. A subclass may define it otherwise, and
        its exits are then read one after the other, wherever a walk leads.
        """
        state = self.encoder.advance(state)
        exit = self.exit_layers.index(state.depth) + 1
        return state, self.heads(exit, state)

    def reads(self, exits: Sequence[int]) -> Sequence[int]:
        """The exits whose heads run where some are asked for, from 1.

        No others; but all on the way if :meth:`step` is a subclass's, which
        alone knows what an exit hands on.
        """
        if getattr(self.step, "__func__", None) is EarlyExitModel.step:
            return exits
        return range(1, exits[-1] + 1)

    def walk(
        self, state: EncoderState, exit: int
    ) -> tuple[EncoderState, ExitOutput]:
        """As :meth:`step`, to a certain exit from 1; of those below it, what
        :meth:`reads` says is read.
        """
        read = self.reads((exit,))
        for passed, layer in enumerate(self.exit_layers[: exit - 1], start=1):
            if state.depth < layer and passed in read:
                state, _ = self.step(state)
            elif state.depth < layer:
                state = self.encoder.advance(state)
        return self.step(state)

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
            BOS and the transcripts, shape (B, S); the attention heads predict
            the tokens after each.
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
        """The model that ends at an exit, of the same class and parameters: no
        layer and no head above the exit.
        """
        if not 1 <= exits <= len(self.exit_layers):
            raise InputError(
                f"exit: {exits} is not an exit of this model; it has the "
                f"exits 1 to {len(self.exit_layers)}."
            )
        model = shared_copy(self)
        for name in ("encoder", *self.every_head):
            setattr(model, name, getattr(self, name).truncated(exits))
        return model
