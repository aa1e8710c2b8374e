"""One stop rule, one set of policies: tables predict what inference does.

Authors
 * The speechbrain-ee contributors 2026
"""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import shipped_policies
from speechbrain_ee.evaluation.report import console_tables, write_report
from speechbrain_ee.exits.calibration.calibrate import Search
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.policy import choices_NT, first_exit
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.folder import training_run
from speechbrain_ee.inference.folder.model_folder import read_model_folder
from speechbrain_ee.inference.folder.training_run import (
    choose_default,
    export_run,
)
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.training.checkpoints import write_policies
from tests.inference.runs import write_run
from tests.known_issues.test_policies_say_what_they_rest_on import with_audio

EDGES = st.sampled_from([-np.inf, np.inf, np.nan, -1.0, 0.0, 0.5])
LIMITS = st.sampled_from([-np.inf, np.inf, -1.0, 0.0, 0.25, 0.5])


def in_words(scores, limits):
    """Minus infinity always stops, plus infinity and NaN scores never."""
    for place, (score, limit) in enumerate(zip(scores, limits)):
        reached = not np.isnan(score) and score >= limit
        if limit == -np.inf or (reached and limit != np.inf):
            return place
    return len(scores) - 1


def alive(rule, scores):
    """Where utterances leave that are asked at one exit after the other."""
    rows, exits = scores.shape
    taken_N = np.full(rows, -1)
    for exit in range(1, exits + 1):
        stop_N = np.asarray(rule.stop(exit, scores[:, exit - 1]))
        taken_N[stop_N & (taken_N < 0)] = exit - 1
    return taken_N.tolist()


@given(
    hnp.arrays(
        float, st.tuples(st.integers(1, 6), st.integers(2, 4)), elements=EDGES
    ),
    st.lists(LIMITS, min_size=3, max_size=3),
    st.booleans(),
)
def test_all_users_of_the_stop_rule_agree(scores_NE, limits, per_exit):
    """Tables, sweeps, calibration, live inference, graphs on a device."""
    exits = scores_NE.shape[1]
    limits_K = np.array(limits if per_exit else limits[:1] * 3)[: exits - 1]
    threshold = tuple(limits_K.tolist()) if per_exit else limits[0]
    layers = tuple(range(1, exits + 1))
    wanted = [in_words(row, limits_K) for row in scores_NE]
    policy = ExitPolicy("entropy", layers, threshold, "wer=+5%", "naive")
    assert first_exit(scores_NE, threshold).tolist() == wanted
    assert policy.choose(scores_NE).tolist() == wanted
    asked = limits_K[None] if per_exit else limits[:1]
    assert choices_NT(scores_NE, asked)[:, 0].tolist() == wanted
    live = LivePolicy.of(policy, layers)
    host = Policies(layers, measures=("entropy",)).resolve(policy)
    for rule in (policy, live.rule, host.rule):
        assert alive(rule, scores_NE) == wanted
        assert alive(rule, torch.from_numpy(scores_NE)) == wanted
    for place, limit in enumerate([*limits_K, -np.inf]):
        assert live.decides[place] == host.reads[place] == (limit != np.inf)
    # the search of a calibration knows the sum of every threshold it tries
    places_NE = np.broadcast_to(np.arange(exits), scores_NE.shape)
    search = Search(scores_NE)
    for exit, grid in enumerate(search.grids):
        sums_G = search.totals(limits_K, exit, places_NE)
        for limit, total in zip(grid, sums_G, strict=True):
            tried_K = limits_K.copy()
            tried_K[exit] = limit
            choices = [in_words(row, tried_K) for row in scores_NE]
            assert total == sum(choices)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_the_report_measures_what_the_folder_does(share, tmp_path, monkeypatch):
    """The same policies, numbers and default; an export chooses no other."""

    def timed(runner, policies, *_):
        return dict.fromkeys(policies, share)

    monkeypatch.setattr(training_run, "time_shares", timed)
    run = write_run(tmp_path / "run", exit_layers=[1, 2, 3, 4])
    with_audio(run)
    save = run.folder / "save"
    # as evaluation does, on evidence that the trace's file does not tell
    policies = shipped_policies(run.dev, "wer=+40%", selector="../selector")
    assert {*policies} == {
        f"{name}.{how}"
        for name in ("entropy", "learned")
        for how in ("ltt", "naive")
    }
    write_policies(save, policies)
    hparams = {"output_folder": str(run.folder), "save_folder": str(save)}
    default = choose_default(hparams, policies, run.dev)
    assert (default[0] is None) == (share == 0.99)
    report = write_report(
        run.test,
        tmp_path / "report",
        "a run",
        policies=list(policies.values()),
        dev=run.dev,
        default=default,
    )

    monkeypatch.setattr(training_run, "time_shares", None)  # never again
    for out in ("model", "again"):
        folder = read_model_folder(export_run(run.folder, tmp_path / out))
        assert [*folder.policies] == [*policies]
        name = folder.default_policy
        assert policies.get(name or "") == default[0]
        for source in (tmp_path / out, run.folder):
            asr = EarlyExitASR.from_hparams(str(source))
            assert asr.policies.default == name
    measured = {row.choice: row for row in folder.measured}
    told = report.data["sets"]["test"]["policies"]
    for (known, policy), row in zip(policies.items(), told, strict=True):
        assert row["default"] == (known == name)
        marked = f"{policy.name}, default" if known == name else policy.name
        assert row["name"] == marked
        assert row["budget"] == folder.policies[known].budget == "wer=+40%"
        point = row["point"]
        assert measured[known].wer == pytest.approx(point["wer"], abs=1e-3)
        assert measured[known].layer == pytest.approx(
            point["avg_layer"], abs=1e-3
        )
    shown = console_tables(report)
    page = (tmp_path / "report/report.html").read_text("utf-8")
    card = (tmp_path / "model/README.md").read_text("utf-8")
    for text in (shown, page, json.dumps(report.data), card):
        assert f"`{name or 'last'}`" in text
        assert (", default" in text or "(default)" in text) == (
            name is not None
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "default_policy.json"),
        ('{"default_policy": 3, "default_reason": ""}', "null"),
        ('{"default_policy": "../x", "default_reason": ""}', "key default_po"),
    ],
)
def test_a_damaged_record_of_the_default_is_refused(text, said, tmp_path):
    run = write_run(tmp_path / "run", exit_layers=[1, 2, 3, 4])
    save = run.folder / "save"
    write_policies(save, shipped_policies(run.dev, "wer=+40%", ["entropy"]))
    (save / "default_policy.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match=said):
        training_run.run_folder(run.folder)
