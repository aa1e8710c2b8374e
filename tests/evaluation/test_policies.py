"""Given policies on a test set: measured, judged, warned about.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import (
    analyse,
    scored_for,
    with_policies,
)
from speechbrain_ee.evaluation.calibrate import (
    SELECTOR_FILE,
    calibrate_command,
    learn_command,
)
from speechbrain_ee.evaluation.report import (
    report_command,
)
from speechbrain_ee.exits import read_trace, write_trace
from speechbrain_ee.exits.calibration.policy_file import (
    CalibrationSummary,
    ExitPolicy,
    read_policy,
    write_policy,
)
from speechbrain_ee.exits.calibration.shift import distributions
from speechbrain_ee.exits.selector.selector_file import read_selector
from tests.evaluation.made_up import made_up
from tests.spoken import spoken

LAYERS = (2, 4, 6, 8)


def given(budget="layers=5", threshold=-0.4, **fields):
    return ExitPolicy("entropy", LAYERS, threshold, budget, "ltt", **fields)


def on(trace, policy):
    (result,) = with_policies(analyse(trace), [policy]).policies
    return result


@pytest.mark.parametrize("threshold", [-0.4, (-0.1, -0.6, -0.3)])
def test_a_policy_is_measured_as_by_hand(threshold):
    trace = made_up(200, 1)
    told = replace(trace.header, vocab_size=30, frames_per_s=25.0)
    trace = type(trace)(told, trace.records)
    result = on(trace, given(threshold=threshold))
    limits = threshold if isinstance(threshold, tuple) else (threshold,) * 3
    errors = layers = macs = 0
    stops = np.zeros(4)
    for record in trace.records:
        for k, exit_ in enumerate(record.exits):
            # deciding takes one operation per frame and vocabulary entry
            if k < 3:
                macs += np.ceil(25.0 * record.duration_s) * 30
            if k == 3 or -exit_.evidence["entropy"] >= limits[k]:
                break
        errors += exit_.errors
        layers += exit_.layer
        macs += trace.header.macs[k] * record.duration_s / 10
        stops[k] += 1
    assert result.point.wer == pytest.approx(100 * errors / trace.words_N.sum())
    assert result.point.avg_layer == pytest.approx(layers / 200)
    assert result.point.avg_macs == pytest.approx(macs / 200)
    assert result.exit_shares == pytest.approx(stops / 200)
    last = trace.errors_NE[:, -1].sum()
    assert result.excess == pytest.approx(100 * (errors / last - 1))


def test_budgets_are_judged_on_this_set():
    trace = made_up(200, 1)
    point = on(trace, given()).point
    last = 100 * trace.errors_NE[:, -1].sum() / trace.words_N.sum()
    reached = {
        "layers={}": point.avg_layer,
        "macs={}": point.avg_macs,
        "wer=+{}": point.wer - last,
        "wer=+{}%": 100 * (point.wer / last - 1),
    }
    for form, value in reached.items():
        assert on(trace, given(form.format(value * 1.01))).holds is True
        assert on(trace, given(form.format(value * 0.99))).holds is False
    bare = type(trace)(replace(trace.header, macs=None), trace.records)
    assert on(bare, given("macs=100")).holds is None
    for change, said in (
        ({"exit_layers": (3, 6)}, r"\[3, 6\].*\[2, 4, 6, 8\]"),
        ({"criterion": "max_prob"}, "max_prob"),
    ):
        with pytest.raises(InputError, match=said):
            on(trace, replace(given(), **change))


def test_warnings():
    trace = made_up(400, 1)
    scores_NE = -trace.evidence_NE("entropy")
    summary = CalibrationSummary(
        *("m", "d", ("dev",), 400, 4000, 4, 4.1, 5),
        clustered_by="speaker",
        clusters=40,
    )
    same, other = (
        given(calibration=summary, distributions=distributions(scores))
        for scores in (scores_NE, scores_NE - 0.5)
    )
    assert on(trace, same).warnings == ()
    (warning,) = on(trace, other).warnings
    assert "different from the calibration data" in warning
    (warning,) = on(trace, replace(same, satisfied=False)).warnings
    assert "No threshold satisfied" in warning
    blind = replace(summary, clustered_by="utterance", clusters=400)
    (warning,) = on(
        trace, replace(same, method="ltt", calibration=blind)
    ).warnings
    assert "no promise for new speakers" in warning


@pytest.mark.usefixtures("undrawn")
def test_in_the_report(tmp_path):
    trace = made_up(200, 1)
    write_trace(tmp_path / "t.jsonl", trace.header, trace.records)
    # no threshold reaches an infinite one: JSON must do without the number
    policies = {"a": given(), "b": given("wer=+5%", np.inf, satisfied=False)}
    paths = [tmp_path / f"{name}.yaml" for name in policies]
    for path, policy in zip(paths, policies.values(), strict=True):
        write_policy(path, policy)
    text = report_command(
        [tmp_path / "t.jsonl"], tmp_path / "out", policies=paths
    )
    assert "entropy, layers=5 (ltt)" in text
    assert max(map(len, text.splitlines()[:-1])) <= 100
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    first, second = data["sets"]["test"]["policies"]
    assert first["name"] == "entropy, layers=5 (ltt)"
    assert second["point"]["avg_layer"] == 8 and second["holds"] is True
    assert second["excess"] == 0 and second["exit_shares"] == [0, 0, 0, 1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "entropy, layers=5 (ltt)" in page


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Selector in one folder, its policy in another, both named relatively."""
    root = tmp_path_factory.mktemp("learned")
    dev = spoken()
    write_trace(root / "dev.jsonl", dev.header, dev.records)
    before = Path.cwd()
    os.chdir(root)
    try:
        learn_command("dev.jsonl", "model")
        calibrate_command(
            "model/dev.jsonl",
            "learned",
            "wer=+20%",
            "naive",
            out="policies/mine/p.yaml",
            selector=f"model/{SELECTOR_FILE}",
        )
    finally:
        os.chdir(before)
    return root


def test_a_selector_lies_relative_to_the_policy(learned, tmp_path):
    """Also after both were moved, and seen from any folder."""
    place = learned / "policies" / "mine" / "p.yaml"
    policy = read_policy(place)
    assert policy.criterion == "learned" and policy.satisfied
    assert Path(policy.selector) == Path("../../model") / SELECTOR_FILE
    test = spoken(40, 9, name="test")
    selector = read_selector(learned / "model" / SELECTOR_FILE)
    scores_NE = selector.scores(test.evidence)
    shutil.copytree(learned / "policies", tmp_path / "policies")
    moved = tmp_path / place.relative_to(learned)
    with pytest.raises(InputError, match=SELECTOR_FILE):
        scored_for([test], moved, policy)
    shutil.copytree(learned / "model", tmp_path / "model")
    for path in (place, moved):
        (scored,) = scored_for([test], path, policy)
        assert np.array_equal(scored.evidence_NE("learned"), scores_NE)
    # scores that are there are kept, as those of the calibration set, which
    # are not in-sample; other exits have none
    dev = read_trace(learned / "model" / "dev.jsonl")
    others = spoken(40, 9, layers=(3, 5, 7))
    first, second = scored_for([dev, others], place, policy)
    assert first is dev and second is others
    # without a selector to read there is no file to miss
    assert scored_for([test], Path("nowhere/p.yaml"), given()) == [test]


@pytest.mark.usefixtures("undrawn")
def test_report_scores_a_trace_by_the_policys_selector(learned, tmp_path):
    place = learned / "policies" / "mine" / "p.yaml"
    test = spoken(40, 9, name="test")
    selector = read_selector(learned / "model" / SELECTOR_FILE)
    choice_N = read_policy(place).choose(selector.scores(test.evidence))
    write_trace(tmp_path / "t.jsonl.gz", test.header, test.records)
    report = report_command(
        [tmp_path / "t.jsonl.gz"], tmp_path / "out", True, [place]
    )
    (found,) = json.loads(report)["sets"]["test"]["policies"]
    shares = np.bincount(choice_N, minlength=3) / 40
    assert found["exit_shares"] == pytest.approx(shares, abs=1e-3)
    assert (shares[:2] > 0).all()
    errors = test.errors_NE[np.arange(40), choice_N].sum()
    wer = 100 * errors / test.words_N.sum()
    assert found["point"]["wer"] == pytest.approx(wer, abs=1e-2)
