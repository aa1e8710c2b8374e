"""The commands ``calibrate`` and ``learn``, end to end on small traces.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from pathlib import Path

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import (
    SELECTOR_FILE,
    calibrate_command,
    learn_command,
)
from speechbrain_ee.exits import read_trace, write_trace
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.selector.selector import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace import ExitRecord, TraceHeader, UtteranceRecord
from tests.spoken import spoken, texts

LAYERS = (2, 4, 6)
REF = "one two three four five six seven eight nine ten"


def records(name, seed, utterances, harder=0.0, ref=REF):
    """Utterances whose entropy tells how many errors there are."""
    rng = np.random.default_rng(seed)
    for number in range(utterances):
        errors = rng.poisson((3, 1, 0.5)) if ref else [0, 0, 0]
        exits = tuple(
            ExitRecord(
                layer,
                errors=int(count),
                evidence={
                    "entropy": float(harder + 0.1 * count + 0.01 * rng.random())
                },
                macs=layer * (1000 + number),
            )
            for layer, count in zip(LAYERS, errors)
        )
        yield UtteranceRecord(f"{name}-{number}", name, ref, exits)


@pytest.fixture(scope="module")
def trace_path(tmp_path_factory):
    """Two sets, the second one harder."""
    path = tmp_path_factory.mktemp("traces") / "dev.jsonl.gz"
    rows = [*records("easy", 1, 300), *records("hard", 2, 250, harder=0.2)]
    write_trace(path, TraceHeader("tiny", "greedy", LAYERS), rows)
    return path


@pytest.mark.parametrize("budget", ["wer=+5", "wer=+50%", "layers=5"])
@pytest.mark.parametrize("method", ["naive", "crc", "ltt"])
@pytest.mark.parametrize("per_exit", [False, True])
def test_end_to_end(trace_path, tmp_path, budget, method, per_exit):
    out = tmp_path / "new" / "policy.yaml"
    text = calibrate_command(
        trace_path, "entropy", budget, method, 0.1, per_exit, out, "easy"
    )
    policy = read_policy(out)
    assert policy.satisfied
    assert (policy.criterion, policy.method) == ("entropy", method)
    assert policy.exit_layers == LAYERS
    assert isinstance(policy.threshold, tuple) == per_exit
    # what the file says is what the policy does on that set
    part = read_trace(trace_path).subset("easy")
    scores_NE = get_criterion("entropy").scores(part.evidence)
    choice_N = policy.choose(scores_NE)
    known = policy.calibration
    errors = part.errors_NE[np.arange(300), choice_N].sum()
    assert known.wer == pytest.approx(100 * errors / 3000, abs=1e-3)
    layers = part.layers_E[choice_N].mean()
    assert known.avg_layer == pytest.approx(layers, abs=1e-3)
    assert (known.sets, known.utterances, known.words) == (("easy",), 300, 3000)
    assert f"{known.wer:.2f} % WER" in text
    assert policy.guarantee in " ".join(text.split())  # lines are wrapped
    assert str(out) in text
    if budget == "layers=5":
        assert known.avg_layer <= 5
    else:
        assert known.avg_layer < 6


def test_target_that_looks_different_is_warned_about(trace_path, tmp_path):
    target = tmp_path / "hard.jsonl"
    header = TraceHeader("tiny", "greedy", LAYERS)
    write_trace(target, header, records("new", 3, 120, harder=0.2))
    arguments = {"set_name": "easy", "out": tmp_path / "policy.yaml"}
    text = calibrate_command(
        trace_path, "entropy", "wer=+5", target=target, **arguments
    )
    assert "Warning" in text
    assert "look different" in text
    assert read_policy(tmp_path / "policy.yaml").target_utterances == 120
    write_trace(target, header, records("new", 3, 120))
    text = calibrate_command(
        trace_path, "entropy", "wer=+5", target=target, **arguments
    )
    assert "Warning" not in text


def test_all_sets_and_what_is_said_plainly(trace_path, tmp_path):
    out = tmp_path / "policy.yaml"
    calibrate_command(trace_path, "entropy", "macs=5k", out=out)
    known = read_policy(out).calibration
    assert known.sets == ("easy", "hard") and known.avg_macs <= 5000
    text = calibrate_command(
        trace_path, "random", "wer=+0", out=out, set_name="hard"
    )
    policy = read_policy(out)
    assert not policy.satisfied
    assert policy.thresholds == (np.inf, np.inf)
    assert "No threshold satisfies wer=+0" in text
    assert "always goes to the last exit" in text
    few = tmp_path / "few.jsonl"
    header = TraceHeader("tiny", "greedy", LAYERS)
    write_trace(few, header, records("few", 1, 40))
    text = calibrate_command(few, "entropy", "wer=+20", out=out)
    assert "40 utterances are few" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"criterion": "entropi"}, "entropy"),
        ({"criterion": "agreement"}, "transcripts"),
        ({"criterion": "max_prob"}, "max_prob"),
        ({"budget": "wer=5"}, "wer=\\+5%"),
        ({"budget": "layers=1"}, "layers=2"),
        ({"budget": "macs=1k"}, "smallest possible value is macs=2"),
        ({"method": "lttt"}, "naive, crc, ltt"),
        ({"delta": 0.0}, "delta"),
        ({"set_name": "dev"}, "easy, hard"),
        ({"trace": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_bad_input_leaves_no_file(trace_path, tmp_path, change, said):
    out = tmp_path / "policy.yaml"
    arguments = {
        "trace": trace_path,
        "criterion": "entropy",
        "budget": "wer=+5%",
        "out": out,
    }
    with pytest.raises(InputError, match=said):
        calibrate_command(**{**arguments, **change})
    assert not out.exists()


def test_trace_without_words_or_without_a_choice(tmp_path):
    path = tmp_path / "odd.jsonl"
    header = TraceHeader("tiny", "greedy", LAYERS)
    write_trace(path, header, records("odd", 1, 5, ref=""))
    with pytest.raises(InputError, match="references are"):
        calibrate_command(path, "entropy", "wer=+5%", out=tmp_path / "p")
    row = UtteranceRecord("u", "s", REF, (ExitRecord(2, errors=1),))
    write_trace(path, TraceHeader("tiny", "greedy", (2,)), [row])
    with pytest.raises(InputError, match="one exit only"):
        calibrate_command(path, "random", "wer=+5%", out=tmp_path / "p")


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
    if with_texts:  # which make a difference
        _, plain_NE = LearnedSelector.fit_left_out(before, [])
        assert not np.allclose(plain_NE, left_out_NE)
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
def test_learn_leaves_no_file_of_bad_input(tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    trace = spoken()
    for name, rows in (("dev.jsonl", 60), ("few.jsonl", 12)):
        write_trace(tmp_path / name, trace.header, trace.records[:rows])
    (tmp_path / "latin.txt").write_bytes("caxf\u00e9\n".encode("latin-1"))
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InputError, match=said):
        learn_command(**{"trace": "dev.jsonl", "out": "out", **change})
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
