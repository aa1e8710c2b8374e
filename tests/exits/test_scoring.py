"""Word errors: known counts, and agreement with SpeechBrain.

Authors
 * The speechbrain-ee contributors 2026
"""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_ee.exits.scoring import edit_counts, mark_errors

TEXTS = st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("ref", "hyp", "counts"),
    [
        ("a b c", "a b c", (0, 0, 0)),
        ("a b c", "a x c", (1, 0, 0)),
        ("a b c", "a c", (0, 1, 0)),
        ("a b c", "a b c d", (0, 0, 1)),
        ("a b", "", (0, 2, 0)),
        ("", "a b", (0, 0, 2)),
        ("", "", (0, 0, 0)),
        ("a  b ", " a b", (0, 0, 0)),
    ],
)
def test_known_counts(ref, hyp, counts):
    assert tuple(edit_counts([ref], [hyp])[0]) == counts


def naive_distance(ref, hyp):
    row = list(range(len(hyp) + 1))
    for i, a in enumerate(ref, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(hyp, 1):
            previous, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, previous + (a != b)),
            )
    return row[-1]


@given(PAIRS)
def test_counts_are_jiwers(pairs):
    refs, hyps = zip(*[(r, h) for r, h in pairs if r] or [("a", "b")])
    for unit, process in (
        ("word", jiwer.process_words),
        ("character", jiwer.process_characters),
    ):
        found = process(list(refs), list(hyps))
        kinds = found.substitutions, found.deletions, found.insertions
        assert tuple(edit_counts(refs, hyps, unit).sum(0)) == kinds


@given(PAIRS)
def test_totals_are_edit_distances(pairs):
    refs, hyps = zip(*pairs)
    words = edit_counts(refs, hyps).sum(1).tolist()
    chars = edit_counts(refs, hyps, unit="character").sum(1).tolist()
    assert words == [naive_distance(r.split(), h.split()) for r, h in pairs]
    assert chars == [naive_distance(r, h) for r, h in pairs]


@given(PAIRS)
def test_edits_account_for_the_lengths(pairs):
    for (ref, hyp), (_, dels, ins) in zip(pairs, edit_counts(*zip(*pairs))):
        assert len(hyp.split()) - len(ref.split()) == ins - dels


@given(PAIRS)
def test_marks_rebuild_the_hypothesis(pairs):
    for ref, hyp in pairs:
        shown = [w for kind, w in mark_errors(ref, hyp) if kind != "delete"]
        assert " ".join(shown) == hyp
