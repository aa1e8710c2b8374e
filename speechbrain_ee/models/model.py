"""The multi-exit model: an encoder and what is read off it.

Authors
 * The speechbrain-ee contributors 2026
"""

from torch import Tensor, nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.encoder import MultiExitEncoder
from speechbrain_ee.models.heads import CTCHeads, ExitOutput
from speechbrain_ee.models.state import EncoderState


class EarlyExitModel(nn.Module):
    """An encoder with a head at every exit; the one module that DDP wraps.

    Arguments
    ---------
    encoder : MultiExitEncoder
        The layer-wise encoder.
    heads : CTCHeads
        One head per exit.
    """

    def __init__(self, encoder: MultiExitEncoder, heads: CTCHeads):
        super().__init__()
        if encoder.num_exits != heads.num_exits:
            raise InputError(
                f"exit_layers: the encoder has {encoder.num_exits} exits and "
                f"there are {heads.num_exits} heads; build both from the same "
                "`exit_layers`."
            )
        self.encoder = encoder
        self.heads = heads

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

    def forward(self, wavs: Tensor, wav_lens: Tensor) -> list[ExitOutput]:
        """All exits of a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, shape (B, samples).
        wav_lens : torch.Tensor
            Lengths relative to the longest, shape (B,).

        Returns
        -------
        list of ExitOutput
            One output per exit, from the first to the last.
        """
        state = self.start(wavs, wav_lens)
        outputs = []
        for _ in self.exit_layers:
            state, output = self.step(state)
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
        return EarlyExitModel(
            self.encoder.truncated(exits), self.heads.truncated(exits)
        ).train(self.training)
