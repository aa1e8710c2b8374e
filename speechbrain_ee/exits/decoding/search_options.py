"""How transcripts are searched for with an attention head.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speechbrain.decoders.scorer import BaseScorerInterface

from speechbrain_ee.errors import InputError


@dataclass(frozen=True)
class SearchOptions:
    """How transcripts are searched for.

    Arguments
    ---------
    beam_size : int
        Hypotheses K kept at every step.
    ctc_weight : float
        Share of CTC in joint decoding and in rescoring, between 0 and 1.
    max_decode_ratio : float
        A hypothesis is cut at so many tokens per encoder frame; with CTC,
        which has no path for more tokens than frames, at most there.
    temperature : float
        Of the attention head's softmax.
    using_eos_threshold : bool
        End a hypothesis only where the end is nearly as probable as the best
        token.
    eos_threshold : float
        How nearly: ratio of their log-probabilities.
    scorer_beam_scale : float
        CTC looks at so many times ``beam_size`` tokens per hypothesis.
    scorers : sequence of BaseScorerInterface
        Further SpeechBrain scorers, for example ``TransformerLMScorer`` or
        ``KenLMScorer``, over the same tokens.
    scorer_weights : mapping of str to float
        Their weights by SpeechBrain's names, ``transformerlm``, ``kenlm``.

    Example
    -------
    >>> SearchOptions(beam_size=0)
    Traceback (most recent call last):
    ...
    speechbrain_ee.errors.InputError: search: beam_size: 0 must be an ...
    """

    beam_size: int = 10
    ctc_weight: float = 0.4
    max_decode_ratio: float = 1.0
    temperature: float = 1.0
    using_eos_threshold: bool = True
    eos_threshold: float = 1.5
    scorer_beam_scale: float = 1.5
    scorers: Sequence[BaseScorerInterface] = ()
    scorer_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(
            isinstance(self.beam_size, int) and self.beam_size >= 1,
            f"beam_size: {self.beam_size} must be an integer of at least 1, "
            "for example 10",
        )
        _check(
            _is_number(self.ctc_weight) and 0 < self.ctc_weight < 1,
            f"ctc_weight: {self.ctc_weight} must be between 0 and 1; for the "
            "attention head alone use the decoding `attention`, for CTC "
            "alone `ctc_beam`",
        )
        for name in (
            "max_decode_ratio",
            "temperature",
            "eos_threshold",
            "scorer_beam_scale",
        ):
            value = getattr(self, name)
            _check(
                _is_number(value) and value > 0,
                f"{name}: {value!r} must be a positive number",
            )
        names = [_scorer_name(scorer) for scorer in self.scorers]
        _check(
            sorted(names) == sorted(self.scorer_weights),
            f"scorer_weights: {dict(self.scorer_weights)} must give one "
            f"weight to each of the scorers: {', '.join(names) or 'none'}",
        )
        _check(
            not {"ctc", "length"} & set(names),
            f"scorers: {', '.join(names)}: leave out `ctc`, which is the "
            "exit's own and weighted by ctc_weight, and `length`, because "
            "scores are compared per token",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scorer_name(scorer: BaseScorerInterface) -> str:
    return type(scorer).__name__.lower().removesuffix("scorer")


def _check(valid: bool, problem: str) -> None:
    if not valid:
        raise InputError(f"search: {problem}.")
