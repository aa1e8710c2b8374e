"""All ways of decoding an exit, by name.

==============  =========================================================
``ctc_greedy``  CTC's best path
``ctc_beam``    the most probable tokens of CTC, all alignments summed
``attention``   beam search over the attention head alone
``joint``       beam search over attention and CTC together (Hori et al.
                2017, ACL, "Joint CTC/attention decoding")
``rescoring``   CTC's N best, rescored by the attention head in one pass
==============  =========================================================

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.decoding.beam_search import AttentionBeamSearch
from speechbrain_ee.exits.decoding.greedy import greedy_tokens
from speechbrain_ee.exits.decoding.nbest import NBest, Scored
from speechbrain_ee.exits.decoding.rescoring import ctc_nbest, rescore
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.model import EarlyExitModel

GREEDY = "ctc_greedy"
BY_CTC = (GREEDY, "ctc_beam")
BY_ATTENTION = ("attention", "joint", "rescoring")
DECODINGS = (*BY_CTC, *BY_ATTENTION)


class Decoding:
    """One way of decoding the exits of a model.

    Arguments
    ---------
    name : str
        One of :data:`DECODINGS`.
    model : EarlyExitModel
        The model; with attention heads for the last three.
    options : SearchOptions, optional
        Width of the beam, weights.
    """

    def __init__(
        self,
        name: str,
        model: EarlyExitModel,
        options: SearchOptions | None = None,
    ):
        check_decodings([name], model)
        self.name = name
        self.attention = model.attention
        self.options = options or SearchOptions()
        self.search = None
        if name in ("attention", "joint"):
            self.search = AttentionBeamSearch(
                model.attention, self.options, joint=name == "joint"
            )

    @property
    def uses_attention(self) -> bool:
        """Whether the attention head takes part."""
        return self.name in BY_ATTENTION

    def __call__(self, exit: int, output: ExitOutput) -> list[NBest]:
        """Decode a batch at an exit.

        Arguments
        ---------
        exit : int
            Number of the exit, from 1.
        output : ExitOutput
            What was read there, hidden states included.

        Returns
        -------
        list of NBest
            One per utterance.
        """
        if self.name == GREEDY:
            best = greedy_tokens(output)
            return [NBest((Scored(tuple(tokens)),)) for tokens in best]
        if self.search is not None:
            return self.search.search(exit, output)
        special = ()
        if self.attention is not None:
            special = (self.attention.bos_index, self.attention.eos_index)
        found = ctc_nbest(output, self.options.beam_size, special)
        if self.name == "rescoring":
            weight = self.options.ctc_weight
            return rescore(exit, output, found, self.attention, weight)
        return [
            NBest(tuple(Scored(one.tokens, one.log_prob) for one in row))
            for row in found
        ]


def check_decodings(
    names: Sequence[str], model: EarlyExitModel, key: str = "decodings"
) -> None:
    """Refuse what a model cannot be decoded by.

    Arguments
    ---------
    names : sequence of str
        Ways of decoding.
    model : EarlyExitModel
        The model.
    key : str
        Where the names come from, for messages.

    Raises
    ------
    InputError
        If there is none, one is unknown, given twice, or needs attention
        heads that the model lacks.
    """
    valid = DECODINGS if model.attention is not None else BY_CTC
    is_list = isinstance(names, list | tuple)
    if not is_list or not names or len({*map(str, names)}) < len(names):
        raise InputError(
            f"{key}: {names!r} must be a list of different ways of decoding, "
            f"for example [{valid[-1]}, {GREEDY}]."
        )
    for name in names:
        if name in valid:
            continue
        why = "is unknown"
        if name in DECODINGS:
            why = "needs attention heads, and the model has none"
        raise InputError(
            f"{key}: {name!r} {why}; valid here: {', '.join(valid)}."
        )
