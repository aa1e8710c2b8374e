"""Promises and intervals are about people who were not heard before.

Utterances of one speaker are alike. A variance over utterances, or a bootstrap
of them, says how far a result is off for other utterances of the same people;
a development set and a user's data have different ones.

Axes: N utterances, T candidates.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from speechbrain_ee.data.corpora import read_split
from speechbrain_ee.evaluation.analysis import analyse, analyse_all
from speechbrain_ee.evaluation.calibrate import (
    calibrate_command,
    calibrate_trace,
)
from speechbrain_ee.evaluation.curves import Bootstrap
from speechbrain_ee.evaluation.recorder import TraceRecorder
from speechbrain_ee.evaluation.report import report_command, sentences
from speechbrain_ee.exits import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
    read_trace,
    write_trace,
)
from speechbrain_ee.exits.calibration.policy_file import (
    read_policy,
    write_policy,
)
from speechbrain_ee.inference.folder.training_run import without_transcripts
from speechbrain_ee.models.heads import ExitOutput

LAYERS = (2, 4, 6)
WORDS = 10
SPREAD = 0.45  # of the speakers' error rates, relative to their mean
TRUE_LOSS = 20.0  # points that the first exit loses, over all speakers


def spoken_by(speakers: int, each: int, seed: int, known: bool = True) -> Trace:
    """Who speaks decides how much early exits lose, which no score tells."""
    rng = np.random.default_rng(seed)
    records = []
    for person in range(speakers):
        lost = rng.gamma(SPREAD**-2, 0.1 * SPREAD**2)
        for n in range(each):
            last = rng.binomial(WORDS, 0.2)
            ready = rng.random()
            more = rng.binomial(WORDS, min(lost * (1.5 - ready), 1))
            errors = (last + 2 * more, last + more, last)
            exits = tuple(
                ExitRecord(layer, None, int(count), {"entropy": 1 - ready})
                for layer, count in zip(LAYERS, errors)
            )
            name = f"{seed}-{person}"
            said = f"{name}-{n}", "dev", "w " * WORDS, exits, 3.0
            records.append(UtteranceRecord(*said, name if known else None))
    header = TraceHeader("simulated", "greedy", LAYERS)
    return Trace(header, tuple(records), "simulated")


def broken(policy, trace: Trace, points: float) -> bool:
    """Whether a budget in points does not hold on a trace."""
    choice_N = policy.choose(-trace.evidence_NE("entropy"))
    rows = np.arange(len(trace))
    more = trace.errors_NE[rows, choice_N] - trace.errors_NE[:, -1]
    return 100 * more.sum() / trace.words_N.sum() > points + 1e-9


@pytest.mark.parametrize(("speakers", "each"), [(2, 40), (10, 16), (40, 6)])
def test_learn_then_test_holds_for_new_speakers(speakers, each):
    """Or does not promise, where there are too few speakers."""
    draws, promised, failed, blind = 100, 0, 0, 0
    for seed in range(draws):
        dev = spoken_by(speakers, each, seed)
        new = spoken_by(speakers, each, draws + seed)
        policy = calibrate_trace(dev, "entropy", "wer=+8")
        promised += not policy.guarantee.startswith("None")
        failed += broken(policy, new, 8)
        unknown = spoken_by(speakers, each, seed, known=False)
        policy = calibrate_trace(unknown, "entropy", "wer=+8")
        assert "no promise for new speakers" in policy.guarantee
        blind += broken(policy, new, 8)
    assert promised == (0 if speakers == 2 else draws)
    # three standard errors of a share of 0.1 in 100 draws
    assert failed <= draws * (0.1 + 3 * 0.03)
    assert failed < blind


def test_interval_is_as_wide_as_speakers_differ():
    trace = spoken_by(40, 20, 3)
    blind = spoken_by(40, 20, 3, known=False)
    widths = []
    for each in (trace, blind):
        draws = Bootstrap(each, 2000)
        low, high = np.percentile(
            draws.fixed.wer_BT[:, 0] - draws.fixed.wer_BT[:, -1],
            draws.percentiles,
        )
        widths.append(high - low)
    more_N = trace.errors_NE[:, 0] - trace.errors_NE[:, -1]
    sums_G = more_N.reshape(40, 20).sum(axis=1)
    half = 2.02 * 100 * sums_G.std(ddof=1) * np.sqrt(40) / trace.words_N.sum()
    assert widths[0] == pytest.approx(2 * half, rel=0.1)
    assert widths[0] > 1.5 * widths[1]


@pytest.mark.parametrize("speakers", [12, 40])
def test_95_percent_of_the_intervals_hold_the_truth(speakers):
    inside = 0
    for seed in range(100):
        draws = Bootstrap(spoken_by(speakers, 6, seed))
        more_B = draws.fixed.wer_BT[:, 0] - draws.fixed.wer_BT[:, -1]
        low, high = np.percentile(more_B, draws.percentiles)
        inside += low <= TRUE_LOSS <= high
    assert inside >= 88


def test_two_sets_are_drawn_independently_and_one_set_alike():
    first, second = (Bootstrap(spoken_by(30, 4, seed)) for seed in (1, 2))
    assert not (first.weights_BG == second.weights_BG).all()
    order = np.random.default_rng(0).permutation(120).tolist()
    for known in (True, False):
        one = spoken_by(30, 4, 1, known)
        drawn = [
            Bootstrap(each).fixed.wer_BT for each in (one, one.select(order))
        ]
        assert np.allclose(*drawn)


def test_thresholds_per_exit_are_tested_on_speakers_of_their_own():
    trace = spoken_by(20, 5, 0)
    seen, tested = trace.clusters.split(0.5, seed=0)
    of = [{trace.records[n].speaker for n in rows} for rows in (seen, tested)]
    assert not of[0] & of[1] and all(len(each) == 10 for each in of)
    policy = calibrate_trace(trace, "entropy", "wer=+8", per_exit=True)
    assert "of 20 or more new speakers" in policy.guarantee
    # half of 12 is too few, although 12 are not
    few = calibrate_trace(
        spoken_by(12, 5, 0), "entropy", "wer=+30", per_exit=True
    )
    assert few.guarantee.startswith("None: 6 speakers")


def test_traces_keep_speakers(tmp_path):
    trace = spoken_by(3, 2, 0)
    path = tmp_path / "t.jsonl.gz"
    write_trace(path, trace.header, trace.records)
    again = read_trace(path)
    assert again.records == trace.records
    assert again.clusters.said == "3 speakers"
    bare = replace(trace.records[0], speaker=None)
    write_trace(path, trace.header, [bare])
    assert read_trace(path).records[0].speaker is None


def test_the_folder_names_the_speaker(tmp_path):
    """Not the file, which need not begin with a speaker's name."""
    chapter = tmp_path / "dev" / "ann" / "1"
    chapter.mkdir(parents=True)
    (chapter / "x.trans.txt").write_text("rec1 A\nrec2-b A\n")
    for name in ("rec1", "rec2-b"):
        (chapter / f"{name}.flac").touch()
    found = read_split(tmp_path / "dev")
    assert [each.speaker for each in found] == ["ann", "ann"]


@pytest.mark.parametrize(
    ("speakers", "written"),
    [(["ann", ""], ["ann", None]), (None, [None, None])],
)
def test_the_recipe_writes_whom_the_corpus_names(speakers, written):
    log_probs = torch.randn(2, 5, 4).log_softmax(-1)
    output = ExitOutput(log_probs, torch.tensor([5, 4]), 2)
    recorder = TraceRecorder("s", lambda tokens: "a")
    recorder.append(["u1", "u2"], ["a", "a"], [9, 8], [output], speakers)
    assert [record.speaker for record in recorder.records] == written


def test_a_guess_is_made_only_where_it_is_asked_for(tmp_path):
    blind = spoken_by(30, 4, 1, known=False)
    assert blind.clusters.by == "utterance"
    (said,) = [
        s for s in sentences("summary", analyse(blind)) if "Intervals" in s
    ]
    assert "by utterance" in said and "too narrow" in said
    records = [
        replace(record, id=f"{n % 30}-1-{n}")
        for n, record in enumerate(blind.records)
    ]
    path, out = tmp_path / "t.jsonl", tmp_path / "p.yaml"
    write_trace(path, blind.header, records)
    text = calibrate_command(path, "entropy", "wer=+8", out=out)
    assert "no speakers known" in text and "By utterance" in text
    text = calibrate_command(
        path, "entropy", "wer=+8", out=out, speakers_from_ids=True
    )
    assert "30 speakers" in text
    known = read_policy(out).calibration
    assert (known.clustered_by, known.clusters) == ("speaker", 30)


def test_policies_and_reports_say_when_speakers_are_few(tmp_path):
    dev, test = spoken_by(5, 50, 1), spoken_by(6, 20, 2)
    policy = calibrate_trace(dev, "entropy", "wer=+30")
    assert policy.satisfied and policy.guarantee.startswith("None: 5 speakers")
    write_policy(tmp_path / "p.yaml", policy)
    assert read_policy(tmp_path / "p.yaml") == policy
    (found,) = analyse_all([test], [policy]).values()
    assert "5 speakers, too few" in found.policies[0].warnings[0]
    (said,) = [s for s in sentences("summary", found) if "Intervals" in s]
    assert "6 speakers: too few to trust them" in said
    write_trace(tmp_path / "t.jsonl", test.header, test.records)
    data = json.loads(
        report_command([tmp_path / "t.jsonl"], tmp_path / "r", as_json=True)
    )
    said = {"by": "speaker", "count": 6, "few": True}
    assert data["sets"]["dev"]["clusters"] == said


def test_a_shipped_trace_has_speakers_without_names():
    trace = spoken_by(12, 3, 5)
    blind = without_transcripts(trace)
    assert blind.clusters.count == 12
    names = {record.speaker for record in trace.records}
    assert not names & {record.speaker for record in blind.records}
    same, other = (
        calibrate_trace(each, "entropy", "wer=+8") for each in (trace, blind)
    )
    # The policies know their utterances again, whose names are not shipped.
    known = replace(same.calibration, fingerprint=other.calibration.fingerprint)
    assert replace(same, calibration=known) == other


def test_one_missing_duration_does_not_change_the_others(caplog):
    trace = spoken_by(2, 2, 0)
    header = replace(trace.header, macs=(10, 20, 30), macs_reference_s=1.0)
    lengths = (2.0, None, 4.0, 6.0)
    records = tuple(
        replace(record, duration_s=length)
        for record, length in zip(trace.records, lengths)
    )
    macs_NE = Trace(header, records).macs_NE
    assert macs_NE[:, 0].tolist() == [20, 40, 40, 60]
    assert "1 of 4 utterances have no duration_s" in caplog.text
