"""The command ``learn``: a selector and scores that it did not see.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from pathlib import Path

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.learn import SELECTOR_FILE, learn_command
from speechbrain_ee.exits import read_trace, write_trace
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import read_selector
from tests.spoken import spoken, texts


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A development trace."""
    path = tmp_path_factory.mktemp("traces") / "dev.jsonl.gz"
    trace = spoken()
    write_trace(path, trace.header, trace.records)
    return path


@pytest.mark.parametrize("with_texts", [True, False])
def test_files_hold_what_was_learned(trace_file, tmp_path, with_texts):
    """Scores left out in the trace, the selector of all beside it."""
    lines = texts() if with_texts else []
    written = None
    if with_texts:
        written = tmp_path / "train.txt"
        written.write_text("\n \n" + "\n".join(lines) + "\n\n", "utf-8")
    out = tmp_path / "new" / "folder"
    shown = learn_command(trace_file, out, written)
    assert sorted(p.name for p in out.iterdir()) == [
        "dev.jsonl.gz",
        SELECTOR_FILE,
    ]
    before, scored = read_trace(trace_file), read_trace(out / "dev.jsonl.gz")
    expected, left_out_NE = LearnedSelector.fit_left_out(before, lines)
    assert np.array_equal(scored.evidence_NE("learned"), left_out_NE)
    assert set(scored.evidence_names) == {"entropy", "max_prob", "learned"}
    assert scored.ids == before.ids
    assert np.array_equal(scored.errors_NE, before.errors_NE)
    unseen = spoken(40, 9).evidence
    selector = read_selector(out / SELECTOR_FILE)
    scores_NE = selector.scores(unseen)
    assert scores_NE == pytest.approx(expected.scores(unseen), rel=1e-6)
    in_sample_NE = selector.scores(before.evidence)
    assert np.abs(in_sample_NE - left_out_NE)[:, :-1].min() > 0
    assert str(out / SELECTOR_FILE) in shown
    assert str(out / "dev.jsonl.gz") in shown
    shares = dict(re.findall(r"(?m)^(\w+) +(-?\d+)$", shown))
    assert list(shares) == list(selector.explain())
    assert sum(map(int, shares.values())) == pytest.approx(100, abs=3)


def test_texts_make_a_difference(trace_file, tmp_path):
    """Or ``--texts`` would be for nothing."""
    written = tmp_path / "train.txt"
    written.write_text("\n".join(texts()), "utf-8")
    learn_command(trace_file, tmp_path / "with", written)
    learn_command(trace_file, tmp_path / "without")
    with_NE, without_NE = (
        read_trace(tmp_path / f / "dev.jsonl.gz").evidence_NE("learned")
        for f in ("with", "without")
    )
    assert not np.allclose(with_NE, without_NE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trace": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"texts": "nowhere.txt"}, "nowhere.txt.*cannot be read as text"),
        ({"texts": "latin.txt"}, "latin.txt.*UTF-8, one per line"),
        ({"out": "."}, "the trace itself lies there.*another"),
        ({"trace": "few.jsonl"}, "few.jsonl: 12 utterances.*at least 20"),
        ({"out": "dev.jsonl/out"}, "dev.jsonl"),
    ],
)
def test_bad_input_leaves_no_file(tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    trace = spoken()
    for name, rows in (("dev.jsonl", 60), ("few.jsonl", 12)):
        write_trace(tmp_path / name, trace.header, trace.records[:rows])
    (tmp_path / "latin.txt").write_bytes("caxf\u00e9\n".encode("latin-1"))
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InputError, match=said):
        learn_command(**{"trace": "dev.jsonl", "out": "out", **change})
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
