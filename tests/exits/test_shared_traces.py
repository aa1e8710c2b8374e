"""Published exits reproduce the numbers printed for them.

Two traces of one wav2vec2 early-exit model on LibriSpeech: greedy
hypotheses, and word errors of a lexicon beam. Skipped without them.

Authors
 * The speechbrain-ee contributors 2026
"""

import jiwer
import pytest
from speechbrain.utils.metric_stats import ErrorRateStats

from speechbrain_ee.exits import Trace, read_trace
from speechbrain_ee.exits.oracle import (
    earliest_best,
    earliest_no_worse,
    overthinking,
)

SIZES = {"test-clean": 2620, "test-other": 2939}
WER_BY_EXIT = {
    "test-clean": [33.74, 17.38, 9.63, 5.78, 4.46, 4.35],
    "test-other": [55.98, 36.70, 23.68, 15.86, 12.59, 12.24],
}
# word error rate in percent, average layer
BEST = {
    ("greedy", "test-clean"): (3.667, 7.265),
    ("greedy", "test-other"): (11.300, 8.343),
    ("beam", "test-clean"): (3.471, 6.496),
    ("beam", "test-other"): (10.490, 7.826),
}
NO_WORSE = {
    "test-clean": (4.004, 7.109),
    "test-other": (11.646, 8.201),
}
OVERTHINKING = {"test-clean": 0.1137, "test-other": 0.1398}


@pytest.fixture(scope="module")
def traces(shared_folder) -> dict[tuple[str, str], Trace]:
    """By decoding and set, each file read and scored once."""
    found = {}
    for decoding in ("greedy", "beam"):
        name = f"wav2vec2-ee.{decoding}.jsonl.gz"
        trace = read_trace(shared_folder / "traces" / name)
        trace.score()
        for part in trace.sets:
            found[decoding, part] = trace.subset(part)
    return found


def at(trace, choice_N):
    """Word error rate in percent and average layer, as printed."""
    rows = range(len(trace))
    errors = sum(int(trace.errors_NE[i, choice_N[i]]) for i in rows)
    layers = sum(int(trace.layers_E[choice_N[i]]) for i in rows)
    wer = 100 * errors / int(trace.words_N.sum())
    return round(wer, 3), round(layers / len(trace), 3)


@pytest.mark.parametrize("part", SIZES)
def test_wer_by_exit(traces, part):
    trace = traces["greedy", part]
    found_E = 100 * trace.errors_NE.sum(axis=0) / trace.words_N.sum()
    assert found_E.round(2).tolist() == WER_BY_EXIT[part]


@pytest.mark.parametrize(("decoding", "part"), BEST)
def test_oracle_earliest_best(traces, decoding, part):
    trace = traces[decoding, part]
    found = at(trace, earliest_best(trace.errors_NE))
    assert found == BEST[decoding, part]


@pytest.mark.parametrize("part", SIZES)
def test_oracle_no_worse_than_last(traces, part):
    trace = traces["greedy", part]
    assert at(trace, earliest_no_worse(trace.errors_NE)) == NO_WORSE[part]


@pytest.mark.parametrize("part", SIZES)
def test_overthinking_share(traces, part):
    share = overthinking(traces["greedy", part].errors_NE).mean()
    assert round(float(share), 4) == OVERTHINKING[part]


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("part", SIZES)
def test_three_tools_count_the_same_errors(traces, part, place):
    trace = traces["greedy", part]
    refs = [row.ref for row in trace.records]
    hyps = [row.exits[place].hyp for row in trace.records]
    errors, words = int(trace.errors_NE[:, place].sum()), trace.words_N.sum()

    stats = ErrorRateStats()
    stats.append(
        list(trace.ids),
        [hyp.split() for hyp in hyps],
        [ref.split() for ref in refs],
    )
    stats.summarize()
    assert stats.summary["num_edits"] == errors
    assert stats.summary["num_scored_tokens"] == words

    jiwers = jiwer.process_words(refs, hyps)
    edits = jiwers.substitutions + jiwers.deletions + jiwers.insertions
    assert edits == errors
    assert jiwers.wer == errors / words == jiwer.wer(refs, hyps)
    assert stats.summary["WER"] == 100 * errors / words
