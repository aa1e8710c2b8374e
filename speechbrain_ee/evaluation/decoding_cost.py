"""What decoding an exit costs, in multiply-accumulates.

The decoder reads a token at a time, keeps what it has read, and projects the
encoder's frames once (:mod:`speechbrain_ee.models.decoder`): with T frames, K
hypotheses and S steps a layer of width D costs

    2 T D^2 + K S (6 D^2 + 2 D F + 2 T D) + K S (S + 1) D,

F the width of its feed-forward layers, and the output layer K S D V. Of CTC's
prefix scores, sums of exponentials over all frames, four operations per frame,
hypothesis and candidate are counted, of CTC's own beam search one addition per
frame and extension. Language models are not counted.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.exits.decoding.beam_search import NBest
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.models.model import EarlyExitModel


class DecodingCost:
    """Multiply-accumulates (MACs) of decoding by exit.

    Arguments
    ---------
    model : EarlyExitModel
        The model.
    options : SearchOptions, optional
        Width of the beam.
    """

    def __init__(
        self, model: EarlyExitModel, options: SearchOptions | None = None
    ):
        self.attention = model.attention
        self.vocab = model.heads.vocab_size
        self.options = options or SearchOptions()

    def macs(self, decoding: str, exit: int, frames: int, nbest: NBest) -> int:
        """MACs of what was done for one utterance at one exit.

        Arguments
        ---------
        decoding : str
            The way of decoding.
        exit : int
            Number of the exit, from 1.
        frames : int
            Encoder frames T.
        nbest : NBest
            What was found.

        Returns
        -------
        int
        """
        beam = self.options.beam_size
        if decoding == "ctc_greedy":
            return 0
        if decoding == "ctc_beam":
            return self._ctc_beam(frames)
        if decoding == "rescoring":
            hypotheses = len(nbest.hypotheses)
            read = self.decoder(exit, frames, nbest.steps, hypotheses, True)
            return self._ctc_beam(frames) + read
        read = self.decoder(exit, frames, nbest.steps, beam)
        if decoding == "joint":
            candidates = int(beam * self.options.scorer_beam_scale)
            candidates = min(max(candidates, 1), self.vocab)
            read += 4 * frames * beam * candidates * nbest.steps
        return read

    def decoder(
        self,
        exit: int,
        frames: int,
        steps: int,
        hypotheses: int,
        at_once: bool = False,
    ) -> int:
        """MACs of an exit's decoder.

        Arguments
        ---------
        exit : int
            Number of the exit, from 1.
        frames : int
            Encoder frames T.
        steps : int
            Tokens S read for each hypothesis.
        hypotheses : int
            Hypotheses K of the utterance.
        at_once : bool
            Whether the tokens are known and read together; every one is then
            held against all, the later ones masked.

        Returns
        -------
        int
        """
        decoder = self.attention.decoder(exit)
        width = decoder.output.in_features
        tokens = hypotheses * steps
        macs = tokens * decoder.output.weight.numel()
        for layer in decoder.layers:
            # queries, keys, values and output of self-attention; queries and
            # output of cross-attention
            weights = 6 * width**2
            weights += sum(
                part.weight.numel()
                for part in layer.pos_ffn.ffn
                if hasattr(part, "weight")
            )
            past = steps**2 if at_once else steps * (steps + 1) // 2
            macs += 2 * frames * width**2
            macs += tokens * (weights + 2 * frames * width)
            macs += hypotheses * 2 * past * width
        return macs

    def _ctc_beam(self, frames: int) -> int:
        beam = self.options.beam_size
        return frames * (self.vocab + beam * min(self.vocab, beam))
