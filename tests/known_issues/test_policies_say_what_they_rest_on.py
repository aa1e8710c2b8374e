"""A policy says what it was calibrated on, and a default why it is that.

Trap avoided: a budget that "holds" on the data that chose the threshold, and
a default policy that is as slow as no policy at all.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import (
    PolicyResult,
    analyse,
    with_policies,
)
from speechbrain_ee.evaluation.calibrate import (
    calibrate_command,
    calibrate_trace,
    default_of,
    shipped_policies,
)
from speechbrain_ee.evaluation.report import report_command
from speechbrain_ee.evaluation.tables import policy_table
from speechbrain_ee.exits import read_trace, write_trace
from speechbrain_ee.exits.calibration.budget import Budget
from speechbrain_ee.exits.calibration.policy_file import (
    ExitPolicy,
    read_policy,
    write_policy,
)
from speechbrain_ee.exits.calibration.shift import fingerprint, seen_share
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.export import export_command
from speechbrain_ee.inference.folder.model_folder import (
    read_model_folder,
    truncated_folder,
)
from speechbrain_ee.inference.folder.training_run import run_folder, time_shares
from tests.helpers import noise
from tests.inference.runs import Run, random_trace, write_run
from tests.spoken import spoken


def written(folder: Path, name: str, trace: Trace) -> Path:
    """A trace as a file."""
    path = folder / f"{name}.jsonl.gz"
    write_trace(path, trace.header, trace.records)
    return path


def measured(trace: Trace, policy: ExitPolicy) -> tuple[str, PolicyResult]:
    """A policy on a set: the cell of the table, and all of it."""
    analysis = with_policies(analyse(trace), [policy])
    return policy_table(analysis).rows[0][-1], analysis.policies[0]


def test_a_report_says_that_a_policy_was_calibrated_on_the_set():
    """Whole, in part, in another order and with further scores."""
    dev = spoken(120)
    policy = calibrate_trace(dev, "entropy", "wer=+20%", "naive")
    half = dev.select(range(0, 120, 2))
    turned = dev.select(range(119, -1, -1)).with_evidence(
        "margin", dev.evidence_NE("entropy")[::-1]
    )
    for trace, share in ((dev, 1), (turned, 1), (half, 0.5)):
        cell, result = measured(trace, policy)
        assert cell == {True: "yes", False: "no"}[result.holds] + ", same data"
        assert result.seen == pytest.approx(share, abs=0.2)
        assert f"{result.seen:.0%} of its calibration" in result.warnings[0]
    cell, result = measured(spoken(80, 9, name="test"), policy)
    assert cell in ("yes", "no")
    assert result.seen == 0 and result.warnings == ()


def test_the_page_and_the_commands_say_so(tmp_path):
    path, policy = written(tmp_path, "dev", spoken()), tmp_path / "policy.yaml"
    said = calibrate_command(
        path, "entropy", "wer=+20%", "naive", out=policy, target=path
    )
    assert "calibrated on this data" in said
    said = report_command([path], tmp_path / "report", policies=[policy])
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    for text in (said, page):
        assert "same data" in text
        assert "no test of its budget" in " ".join(text.split())


def test_the_fingerprint_is_kept(tmp_path):
    """Files without one, of earlier versions, are read."""
    trace = spoken(120)
    policy = calibrate_trace(trace, "entropy", "wer=+20%", "naive")
    known = policy.calibration.fingerprint
    assert known == fingerprint(trace.records) and len(known) == 64
    write_policy(tmp_path / "p.yaml", policy)
    assert read_policy(tmp_path / "p.yaml") == policy
    blind = replace(policy.calibration, fingerprint=())
    old = replace(policy, calibration=blind)
    write_policy(tmp_path / "old.yaml", old)
    assert "fingerprint" not in (tmp_path / "old.yaml").read_text("utf-8")
    assert read_policy(tmp_path / "old.yaml") == old
    assert seen_share((), trace.records) == 0
    assert seen_share(known, spoken(500, 4).records) == 0


def test_a_truncated_model_knows_its_calibration_data(heard):
    """Its own table of the development set has no names any more."""
    cut = truncated_folder(run_folder(heard.folder), 3)
    assert cut.policies
    for policy in cut.policies.values():
        known = policy.calibration.fingerprint
        assert seen_share(known, heard.dev.records) == 1
        assert seen_share(known, spoken(80).records) == 0


def test_calibrate_takes_shares_of_the_last_exit(tmp_path):
    """As live inference does, from the same trace."""
    path = written(tmp_path, "dev", spoken(120))
    out = tmp_path / "policy.yaml"
    given = {"macs=60%": "macs=3.6k", "layers=60%": "layers=3.6"}
    for budget, same in given.items():
        calibrate_command(path, "entropy", budget, "naive", out=out)
        policy = read_policy(out)
        assert policy.budget == same
        wanted = calibrate_trace(read_trace(path), "entropy", same, "naive")
        assert policy == wanted
    odd = calibrate_trace(read_trace(path), "entropy", "macs=61.2345%", "naive")
    assert odd.budget == "macs=3.675k"  # 3674.07 is rounded up
    with pytest.raises(InputError, match="forms"):
        calibrate_trace(read_trace(path), "entropy", "macs=0%")
    with pytest.raises(InputError, match="calibrate.*transcribe --policy"):
        Budget.parse("macs=60%")


def with_audio(run: Run) -> None:
    """The manifest of the run's development set, and some recordings."""
    rows = [("ID", "duration", "wav", "spk_id", "wrd")]
    for number, record in enumerate(run.dev.records[:4]):
        path = run.folder / f"{number}.wav"
        soundfile.write(path, noise(8000, number).numpy(), 16000)
        rows.append((record.id, 0.5, str(path), "s", record.ref))
    with open(run.folder / "dev.csv", "w", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """A run whose development set can be listened to."""
    folder = tmp_path_factory.mktemp("heard") / "run"
    run = write_run(folder, exit_layers=[1, 2, 3, 4])
    with_audio(run)
    return run


def test_an_export_times_policies_on_the_development_set(heard, tmp_path):
    said = export_command(heard.folder, tmp_path / "model")
    folder = read_model_folder(tmp_path / "model")
    assert " time " in folder.default_reason
    name = folder.default_policy or "last"
    (line,) = [each for each in said.splitlines() if "Default" in each]
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    for text in (line, card):
        assert f"`{name}`" in text and folder.default_reason in text
    assert EarlyExitASR(folder).policies.default == folder.default_policy


def test_without_the_audio_compute_decides(heard, tmp_path, caplog):
    bare = shutil.copytree(heard.folder, tmp_path / "bare")
    (bare / "dev.csv").unlink()
    hparams = bare / "hyperparams.yaml"
    text = hparams.read_text("utf-8").replace(str(heard.folder), str(bare))
    hparams.write_text(text, "utf-8")
    export_command(bare, tmp_path / "model")
    assert "cannot be heard" in caplog.text
    folder = read_model_folder(tmp_path / "model")
    assert " multiply-accumulates " in folder.default_reason


@pytest.fixture(scope="module")
def shipped():
    """Policies of a development set on which entropy is worth something."""
    trace = random_trace("dev", (1, 2, 3, 4), 1)
    policies = shipped_policies(trace, "wer=+50%", ["entropy"])
    assert {*policies} == {"entropy.ltt", "entropy.naive"}
    return trace, policies


@pytest.mark.parametrize(
    ("times", "default", "words"),
    [
        ({"entropy.ltt": 0.8, "entropy.naive": 0.6}, "entropy.ltt", "80%"),
        ({"entropy.ltt": 0.95, "entropy.naive": 0.6}, "entropy.naive", "60%"),
        ({"entropy.ltt": 1.02, "entropy.naive": 0.97}, None, "a tenth"),
        ({}, None, "a tenth"),
    ],
)
def test_a_policy_that_saves_nothing_is_not_the_default(
    shipped, times, default, words
):
    """The last exit is, and says why; what promises nothing says that."""
    trace, policies = shipped
    name, reason = default_of(policies, trace, times)
    assert name == default
    assert words in reason and "time" in reason
    assert ("promises nothing" in reason) == (default == "entropy.naive")


def test_a_default_without_anything_to_choose_says_so(shipped):
    trace, policies = shipped
    assert default_of({}, None) == (None, "there is no calibrated policy.")
    failed = {n: replace(p, satisfied=False) for n, p in policies.items()}
    assert default_of(failed, trace)[0] is None


def test_times_are_shares_of_the_last_exits():
    """By policy, in turn, the shorter of two."""
    passes = []

    def run(wavs_BS, lens_B, seconds):
        passes.append((tuple(wavs_BS.shape), seconds))
        time.sleep(seconds)

    runner = SimpleNamespace(run=run)
    waves = [torch.zeros(800), torch.zeros(400)]
    found = time_shares(runner, {"half": 0.01, "most": 0.018}, 0.02, waves)
    assert found == pytest.approx({"half": 0.5, "most": 0.9}, abs=0.15)
    assert found["half"] < found["most"]
    assert {shape for shape, _ in passes} == {(1, 800), (1, 400)}
    threads = torch.get_num_threads()
    time_shares(runner, {"half": 0.001}, 0.001, waves * 9, most_s=0.0)
    assert torch.get_num_threads() == threads
    assert len(passes) == 14 + 5
