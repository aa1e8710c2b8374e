"""Beam search with attention heads: the same as SpeechBrain's, and right.

Axes: B utterances, T frames, S tokens, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from speechbrain.decoders.scorer import (
    CTCScorer,
    KenLMScorer,
    ScorerBuilder,
    TransformerLMScorer,
)
from speechbrain.decoders.seq2seq import S2STransformerBeamSearcher
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM
from torch import Tensor

from speechbrain_ee.exits.decoding import AttentionBeamSearch, SearchOptions
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import ExitOutput
from tests.exits.exit_outputs import (
    BLANK,
    BOS,
    EOS,
    NEVER,
    ctc_log_prob,
    random_output,
    said,
    sure_attention,
)
from tests.helpers import noise, padded, shaken, tiny_model

SPECIAL = {BLANK, BOS, EOS}


class WholePrefix:
    """The decoder as SpeechBrain's searcher calls it."""

    def __init__(self, attention: AttentionHeads, exit: int):
        self.decoder = attention.decoder(exit)
        self.place = attention.places[exit - 1] if attention.shared else 0.0

    def decode(
        self, tokens_NS: Tensor, memory_NTD: Tensor, lengths_N: Tensor
    ) -> tuple[Tensor, None]:
        logits = self.decoder(
            tokens_NS.long(), memory_NTD, lengths_N, self.place
        )
        return logits, None


def speechbrain_search(
    attention: AttentionHeads,
    output: ExitOutput,
    options: SearchOptions,
    joint: bool,
) -> tuple[list[list[int]], list[float]]:
    """Best tokens at exit 2 and their mean scores, by SpeechBrain alone."""
    scorer = None
    if joint:
        ctc = CTCScorer(lambda _: output.log_probs_BTV.clone(), BLANK, EOS)
        scorer = ScorerBuilder(
            {"ctc": options.ctc_weight},
            partial_scorers=[ctc],
            scorer_beam_scale=options.scorer_beam_scale,
        )
    identity = torch.nn.Identity()
    identity.w = attention.decoder(2).output  # asked for its size only
    searcher = S2STransformerBeamSearcher(
        modules=[WholePrefix(attention, 2), identity],
        temperature=options.temperature,
        bos_index=BOS,
        eos_index=EOS,
        min_decode_ratio=0.0,
        max_decode_ratio=options.max_decode_ratio,
        beam_size=options.beam_size,
        using_eos_threshold=options.using_eos_threshold,
        eos_threshold=options.eos_threshold,
        scorer=scorer,
    )
    frames = output.log_probs_BTV.shape[1]
    with torch.no_grad():
        memory_BTD = attention.norms[1](output.hidden_BTD)
        tokens, _, scores, _ = searcher(memory_BTD, output.lengths_B / frames)
    return tokens, scores.tolist()


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"beam_size": 3, "ctc_weight": 0.7},
        {"temperature": 1.3, "using_eos_threshold": False},
        {"eos_threshold": 1.1, "scorer_beam_scale": 1.0},
    ],
)
def test_same_as_speechbrain(changes: dict[str, Any], joint: bool) -> None:
    """Same best transcripts and scores where hypotheses end themselves."""
    options = SearchOptions(**{"beam_size": 4, **changes})
    lengths_seen = set()
    for seed in range(2):
        attention = sure_attention(seed, vocab=12)
        output = random_output([16, 12, 14], seed, vocab=12)
        found = AttentionBeamSearch(attention, options, joint).search(2, output)
        tokens, means = speechbrain_search(attention, output, options, joint)
        assert all(one.complete for n in found for one in n.hypotheses)
        assert [list(nbest.tokens) for nbest in found] == tokens
        assert [n.best.score_per_token for n in found] == pytest.approx(
            means, abs=1e-4
        )
        lengths_seen |= {len(nbest.tokens) for nbest in found}
    assert len(lengths_seen) > 2  # not all decided at the first step


@pytest.mark.parametrize("seed", range(3))
def test_wide_beam_is_exhaustive(seed: int) -> None:
    """A beam wider than all there is finds all, with their scores."""
    attention = sure_attention(seed, vocab=6)
    output = random_output([3], seed, vocab=6)
    options = SearchOptions(beam_size=60, using_eos_threshold=False)
    (nbest,) = AttentionBeamSearch(attention, options, False).search(1, output)
    expected = {}
    for length in range(4):
        for tokens in itertools.product((3, 4, 5), repeat=length):
            # The longest are cut: their end is not scored.
            values = said(attention, output, tokens)[:3]
            expected[tokens] = (float(values.sum()), float(values.mean()))
    found = {
        one.tokens: (one.score, one.score_per_token) for one in nbest.hypotheses
    }
    assert len(nbest.hypotheses) == len(found) == len(expected)
    assert all(found[t] == pytest.approx(expected[t], abs=1e-4) for t in found)
    assert nbest.tokens == max(expected, key=lambda tokens: expected[tokens][1])
    assert all(
        one.complete == (len(one.tokens) < 3) for one in nbest.hypotheses
    )


@pytest.mark.parametrize("weight", [0.2, 0.9])
def test_joint_score_is_the_weighted_sum(weight: float) -> None:
    """Of the attention head's and CTC's own log-probabilities."""
    attention = sure_attention(1)
    output = random_output([14], 1)
    options = SearchOptions(beam_size=4, ctc_weight=weight)
    (nbest,) = AttentionBeamSearch(attention, options).search(1, output)
    ended = [one for one in nbest.hypotheses if one.complete]
    assert len(ended) > 2
    for one in ended:
        values = said(attention, output, one.tokens).tolist()
        assert one.log_probs == pytest.approx(values, abs=1e-3)
        expected = (1 - weight) * sum(values)
        expected += weight * ctc_log_prob(output, one.tokens)
        assert one.score == pytest.approx(expected, abs=1e-3)
    order = [one.score_per_token for one in nbest.hypotheses]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("decoders", ["shared", "separate"])
@torch.no_grad()
def test_truncated_model(decoders: str, joint: bool) -> None:
    """A model that ends at an exit decodes there as the whole model."""
    model = shaken(tiny_model(attention=decoders), by=0.2).eval()
    wavs = padded([noise(9000, 1), noise(6000, 2)])
    options = SearchOptions(beam_size=3)
    whole = AttentionBeamSearch(model.attention, options, joint)
    small = model.truncated(1)
    found = whole.search(1, model(*wavs)[0])
    assert found == AttentionBeamSearch(small.attention, options, joint).search(
        1, small(*wavs)[0]
    )
    other = whole.search(2, model(*wavs)[1])
    assert [n.best.score for n in other] != [n.best.score for n in found]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("ratio", [0.01, 0.4])
def test_never_ending(ratio: float, joint: bool) -> None:
    """Each utterance is cut at a length of its own, its tokens whole."""
    attention = sure_attention(0, vocab=12, end=NEVER)
    output = random_output([10, 5, 1], 0, vocab=12)
    options = SearchOptions(beam_size=4, max_decode_ratio=ratio)
    found = AttentionBeamSearch(attention, options, joint).search(1, output)
    for frames, nbest in zip((10, 5, 1), found):
        limit = max(1, int(frames * ratio))
        assert nbest.steps == limit
        for one in nbest.hypotheses:
            assert not one.complete
            assert len(one.tokens) == len(one.log_probs) == limit


@pytest.mark.parametrize("weight", [0.1, 0.8])
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("beam", [1, 40])
def test_special_tokens_are_never_emitted(
    beam: int, joint: bool, weight: float
) -> None:
    """However probable they are, and however wide the beam is."""
    attention = sure_attention(3)
    with torch.no_grad():
        attention.decoders[0].output.bias[[BLANK, BOS]] = 5.0
    output = random_output([6, 1], 3)
    options = SearchOptions(beam_size=beam, ctc_weight=weight)
    found = AttentionBeamSearch(attention, options, joint).search(1, output)
    for nbest in found:
        assert 1 <= len(nbest.hypotheses) <= beam
        for one in nbest.hypotheses:
            assert not SPECIAL & set(one.tokens)
            assert -1e3 < one.score < 0
        said_once = {(one.tokens, one.complete) for one in nbest.hypotheses}
        assert len(said_once) == len(nbest.hypotheses)


def test_dead_end() -> None:
    """Where CTC has no path for any further token, what was said stays."""
    attention = sure_attention(0, end=NEVER)
    with torch.no_grad():
        attention.decoders[0].output.bias[3] = 100.0
    output = random_output([4], 0)  # the third 3 would need a fifth frame
    options = SearchOptions(beam_size=1)
    (nbest,) = AttentionBeamSearch(attention, options).search(1, output)
    assert nbest.tokens == (3, 3)
    assert not nbest.best.complete
    assert -1e3 < nbest.best.score < 0


@pytest.mark.parametrize("joint", [False, True])
def test_not_a_number(joint: bool) -> None:
    """Nothing is said of such an utterance; its neighbours are unharmed."""
    attention = sure_attention(2)
    output = random_output([9, 9], 2)
    search = AttentionBeamSearch(attention, SearchOptions(beam_size=3), joint)
    expected = search.search(1, output)[0]
    output.hidden_BTD[1] = torch.nan
    fine, broken = search.search(1, output)
    assert fine == expected
    assert broken.tokens == () and broken.steps == 1
    assert broken.best.score != broken.best.score


def test_language_model() -> None:
    """Its log-probabilities enter with their weight; weight 0 is none."""
    attention = sure_attention(4)
    output = random_output([12], 4)
    torch.manual_seed(0)
    lm = shaken(
        TransformerLM(
            vocab=7, d_model=8, nhead=2, num_encoder_layers=1, d_ffn=16
        ).eval()
    )

    def found(weight: float | None, joint: bool) -> Any:
        extra = {}
        if weight is not None:
            extra["scorers"] = [TransformerLMScorer(lm)]
            extra["scorer_weights"] = {"transformerlm": weight}
        options = SearchOptions(beam_size=4, **extra)
        return AttentionBeamSearch(attention, options, joint).search(1, output)

    for joint in (False, True):
        assert found(0.0, joint) == found(None, joint) != found(2.0, joint)
    for one in found(2.0, joint=False)[0].hypotheses:
        assert one.complete
        with torch.no_grad():
            log_probs_SV = lm(torch.tensor([[BOS, *one.tokens]]))[0]
        places = torch.arange(len(one.tokens) + 1)
        by_lm = log_probs_SV.log_softmax(-1)[places, [*one.tokens, EOS]].sum()
        expected = sum(one.log_probs) + 2.0 * float(by_lm)
        assert one.score == pytest.approx(expected, abs=1e-3)


def test_ngram_model(tmp_path: Path) -> None:
    """KenLM scores candidates only; what it likes is said."""
    pytest.importorskip("kenlm")
    names = ["<unk>", "<s>", "</s>", "a", "b", "c", "d"]
    log10 = dict.fromkeys(names, -2.0) | {"c": -0.01}
    lines = "".join(f"{log10[name]}\t{name}\n" for name in names)
    path = tmp_path / "lm.arpa"
    path.write_text(f"\\data\\\nngram 1=7\n\n\\1-grams:\n{lines}\n\\end\\\n")
    options = SearchOptions(
        beam_size=4,
        scorers=[KenLMScorer(str(path), 7, names)],
        scorer_weights={"kenlm": 50.0},
    )
    attention = sure_attention(0)
    output = random_output([6], 0)
    (nbest,) = AttentionBeamSearch(attention, options).search(1, output)
    assert set(nbest.tokens) == {names.index("c")}
