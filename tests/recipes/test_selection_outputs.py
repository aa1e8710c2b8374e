"""What a run of the recipe leaves of exit selection.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from speechbrain_ee.exits import read_trace
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.folder.model_folder import read_model_folder
from speechbrain_ee.inference.folder.training_run import export_run
from tests.recipes.conftest import write_split

Run = Callable[..., subprocess.CompletedProcess[str]]
GIVEN = {"plausibility", "unseen_words", "learned", "combination"}
SELECTOR = "exit_selector.json.gz"
TESTS = ("test-clean", "test-other")
METHODS = ("ltt", "naive")
CRITERIA = ("entropy", "learned", "plausibility", "unseen_words")


@pytest.fixture(scope="module")
def finished(
    recipe_folder: Path,
    shrink: tuple[str, ...],
    run_python: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("selection")
    for place, split in enumerate(("train-clean", "dev-clean", *TESTS), 1):
        for number in range(5 if split == "dev-clean" else 1):
            write_split(root / "corpus" / split, 100 * place + number, 8)
    small = [flag for flag in shrink if "test_dataloader" not in flag]
    done = run_python(
        "train.py",
        "hparams/demo.yaml",
        "--debug",
        "--debug_persistently",  # which leaves an inference folder
        f"--data_folder={root / 'corpus'}",
        f"--output_folder={root / 'out'}",
        "--test_dataloader_opts={num_workers: 0, batch_size: 20}",
        "--exit_layers=[1,3,6]",
        "--exit_budget=wer=+10%",
        *small,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return root / "out", done.stdout


def test_files(finished):
    """Selector and policies beside the checkpoints, scores in the traces."""
    folder, _ = finished
    selector = read_selector(folder / "save" / SELECTOR)
    assert selector.exit_layers == (1, 3, 6)
    for name in (f"{one}.{how}" for one in CRITERIA for how in METHODS):
        policy = read_policy(folder / f"save/policies/{name}.yaml")
        assert f"{policy.criterion}.{policy.method}" == name
        assert policy.budget == "wer=+10%"
        assert policy.exit_layers == (1, 3, 6)
        if policy.criterion == "learned":
            assert policy.selector == f"../{SELECTOR}"
        assert policy.calibration.sets == ("dev-clean",)
        assert policy.calibration.utterances == 40
    for name, utterances in {
        "dev-clean": 40,
        **dict.fromkeys(TESTS, 8),
    }.items():
        trace = read_trace(folder / "traces" / f"{name}.jsonl.gz")
        assert len(trace) == utterances
        assert GIVEN < set(trace.evidence_names)
        assert (folder / f"wer_{name}.txt").is_file()


def test_report_has_the_policies(finished):
    """In its file, in its tables, and not of the development set."""
    folder, shown = finished
    report = json.loads((folder / "report/report.json").read_text("utf-8"))
    assert set(report["sets"]) == set(TESTS)
    names = [f"{c}, wer=+10% ({m})" for c in CRITERIA for m in METHODS]
    for result in report["sets"].values():
        found = [policy["name"] for policy in result["policies"]]
        assert [name.removesuffix(", default") for name in found] == names
        compared = set(result["criteria"])
        assert {"learned", "combination", "plausibility"} <= compared
    for name in names:
        assert name in shown


def test_the_report_measures_what_the_folder_does(finished, tmp_path):
    """The same policies, numbers and default; an export chooses no other."""
    folder, shown = finished
    report = json.loads((folder / "report/report.json").read_text("utf-8"))
    model = read_model_folder(folder / "model")
    again = read_model_folder(export_run(folder, tmp_path / "again"))
    assert again.default_policy == model.default_policy
    assert (
        EarlyExitASR.from_hparams(str(folder)).policies.default
        == model.default_policy
    )
    default = f"`{model.default_policy or 'last'}`"
    assert report["extra"]["Default policy"].startswith(default)
    assert model.default_reason in report["extra"]["Default policy"]
    assert f"Default policy: {default}" in shown
    card = {(row.set, row.choice): row for row in model.measured}
    for name, result in report["sets"].items():
        for (known, policy), told in zip(
            model.policies.items(), result["policies"], strict=True
        ):
            assert told["default"] == (known == model.default_policy)
            assert told["name"].startswith(policy.name)
            row, point = card[name, known], told["point"]
            assert row.wer == pytest.approx(point["wer"], abs=1e-3)
            assert row.layer == pytest.approx(point["avg_layer"], abs=1e-3)
            assert row.macs == pytest.approx(point["avg_macs"], rel=1e-3)
