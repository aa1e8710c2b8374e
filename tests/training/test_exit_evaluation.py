"""After training: the development set teaches, test sets are recorded.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits import Trace, read_trace
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import EXITS, tiny_brain, tiny_model, tone_dataset

LOADER = {"batch_size": 20}
GIVEN = {"plausibility", "unseen_words", "learned", "combination"}
SELECTOR = "exit_selector.json.gz"
CRITERIA = ("entropy", "learned", "plausibility", "unseen_words")
POLICIES = [f"{name}.{how}" for name in CRITERIA for how in ("ltt", "naive")]


def texts() -> list[str]:
    return [row["wrd"] for row in tone_dataset(30, seed=5).data.values()]


def brain_in(folder: Path, **options: Any) -> CTCEarlyExitBrain:
    (folder / "save").mkdir(parents=True, exist_ok=True)
    return tiny_brain(folder, save_folder=str(folder / "save"), **options)


def trained_brain(folder: Path, **options: Any) -> CTCEarlyExitBrain:
    model = tiny_model(attention_type="RoPEMHA", d_model=32)
    brain = brain_in(
        folder,
        model=model,
        epochs=16,
        lr=0.005,
        exit_weights=[0.1, 1.0],
        **options,
    )
    with pytest.MonkeyPatch.context() as patch:
        # SpeechBrain orders utterances by it; other tests may have set it
        patch.delenv("SB_GLOBAL_SEED", raising=False)
        brain.fit(
            brain.hparams.epoch_counter,
            tone_dataset(40),
            tone_dataset(4),
            train_loader_kwargs={"batch_size": 8, "shuffle": True},
            valid_loader_kwargs={"batch_size": 4},
        )
    return brain


def learn(brain: CTCEarlyExitBrain, utterances: int = 48) -> None:
    brain.learn_selection(
        "dev", tone_dataset(utterances, seed=1), LOADER, texts()
    )


def made(folder: Path) -> list[str]:
    found = [*(folder / "save").glob("exit_*")]
    found += (folder / "save/policies").glob("*")
    return sorted(path.name for path in found)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, CTCEarlyExitBrain, Trace]:
    folder = tmp_path_factory.mktemp("trained")
    brain = trained_brain(folder, exit_budget="wer=+10%")
    learn(brain)
    trace = brain.evaluate_exits("test", tone_dataset(24, seed=2), LOADER)
    return folder, brain, trace


def test_files(trained):
    folder, brain, trace = trained
    files = [f"{name}.yaml" for name in POLICIES]
    assert made(folder) == sorted([*files, SELECTOR])
    assert sorted(p.name for p in (folder / "traces").iterdir()) == [
        "dev.jsonl.gz",
        "test.jsonl.gz",
    ]
    selector = read_selector(folder / "save" / SELECTOR)
    assert selector.exit_layers == EXITS
    assert [*brain.evaluator.policies] == POLICIES
    for name, given in brain.evaluator.policies.items():
        policy = read_policy(folder / "save/policies" / f"{name}.yaml")
        assert policy == given
        assert f"{policy.criterion}.{policy.method}" == name
        learned = policy.criterion == "learned"
        assert policy.selector == (f"../{SELECTOR}" if learned else None)
        assert policy.budget == "wer=+10%"
        assert policy.calibration.sets == ("dev",)
        assert policy.calibration.utterances == 48
    written = read_trace(folder / "traces" / "test.jsonl.gz")
    assert set(written.evidence_names) == set(trace.evidence_names)
    assert GIVEN < set(written.evidence_names)
    for name in GIVEN:
        assert np.array_equal(
            written.evidence_NE(name), trace.evidence_NE(name)
        )


def test_development_scores_were_left_out(trained):
    """And are what the policies were calibrated on; test scores were not."""
    folder, brain, trace = trained
    dev = read_trace(folder / "traces" / "dev.jsonl.gz")
    assert GIVEN < set(dev.evidence_names)
    # what the recipe's report chooses criterion and threshold on
    assert brain.evaluator.dev_trace.records == dev.records
    selector = read_selector(folder / "save" / SELECTOR)
    in_sample_NE = selector.scores(dev.evidence)
    left_out_NE = dev.evidence_NE("learned")
    assert np.abs(in_sample_NE - left_out_NE)[:, 0].max() > 0.01
    naive = brain.evaluator.policies["learned.naive"]
    choice_N = naive.choose(left_out_NE)
    errors = dev.errors_NE[np.arange(48), choice_N].sum()
    assert naive.calibration.wer == pytest.approx(
        100 * errors / dev.words_N.sum(), abs=1e-3
    )
    assert errors <= 1.1 * dev.errors_NE[:, -1].sum()
    assert trace.evidence_NE("learned") == pytest.approx(
        selector.scores(trace.evidence), rel=1e-5, abs=1e-6
    )


def test_no_budget_no_policy(tmp_path):
    """What was learned stays."""
    brain = brain_in(tmp_path, exit_budget=None, average_checkpoints=0)
    learn(brain)
    assert brain.evaluator.policies == {} and made(tmp_path) == [SELECTOR]
    trace = brain.evaluate_exits("test", tone_dataset(3, seed=2), LOADER)
    assert GIVEN < set(trace.evidence_names)


def test_few_utterances_are_said_aloud(tmp_path, caplog):
    """And what follows goes on without a selection."""
    brain = brain_in(tmp_path, exit_budget="wer=+5%", average_checkpoints=0)
    with caplog.at_level(logging.WARNING, logger="speechbrain_ee"):
        learn(brain, 4)
    said = [r.getMessage() for r in caplog.records]
    (line,) = [
        text for text in said if "Exit selection was not learned" in text
    ]
    assert "4 utterances" in line and "at least 20" in line
    assert brain.evaluator.selection is None
    assert {p.criterion for p in brain.evaluator.policies.values()} == {
        "entropy"
    }
    assert made(tmp_path) == [
        f"{name}.yaml" for name in brain.evaluator.policies
    ]
    dev = read_trace(tmp_path / "traces" / "dev.jsonl.gz")
    trace = brain.evaluate_exits("test", tone_dataset(3, seed=2), LOADER)
    for found, rows in ((dev, 4), (trace, 3)):
        assert len(found) == rows
        assert not GIVEN & set(found.evidence_names)


def test_a_single_exit_has_nothing_to_choose(tmp_path):
    """Nor does it decode the development set for nothing."""
    model = tiny_model(exit_layers=(4,))
    brain = brain_in(
        tmp_path, model=model, exit_budget="wer=+5%", average_checkpoints=0
    )
    learn(brain)
    assert brain.evaluator.selection is None and made(tmp_path) == []
    assert not (tmp_path / "traces").exists()
    trace = brain.evaluate_exits("test", tone_dataset(3, seed=2), LOADER)
    assert len(trace) == 3 and not GIVEN & set(trace.evidence_names)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("wer=5", "exit_budget: budget 'wer=5'.*wer=\\+5%.*or null"),
        (5, "exit_budget: budget '5'.*or null"),
        ("layers=1", "exit_budget: layers=1.*layer 2.*layers=2"),
    ],
)
def test_a_wrong_budget_stops_before_training(tmp_path, budget, said):
    with pytest.raises(InputError, match=said):
        tiny_brain(tmp_path, exit_budget=budget)
