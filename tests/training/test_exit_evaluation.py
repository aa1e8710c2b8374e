"""After training: the development set teaches, test sets are recorded.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.report import report_command
from speechbrain_ee.exits import Trace, read_trace
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.selector.selector import Selection
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.training.options import check_exit_budget
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import EXITS, tiny_brain, tiny_model, tone_dataset

LOADER = {"batch_size": 20}
GIVEN = {"plausibility", "unseen_words", "learned", "combination"}
SELECTOR = "exit_selector.json.gz"
CRITERIA = ("entropy", "learned", "plausibility", "unseen_words")
POLICIES = [f"{name}.{how}" for name in CRITERIA for how in ("ltt", "naive")]


def texts() -> list[str]:
    """Training transcripts."""
    return [row["wrd"] for row in tone_dataset(30, seed=5).data.values()]


def brain_in(folder: Path, **options: Any) -> CTCEarlyExitBrain:
    """A Brain with a folder for what is learned, untrained."""
    (folder / "save").mkdir(parents=True, exist_ok=True)
    return tiny_brain(folder, save_folder=str(folder / "save"), **options)


def trained_brain(folder: Path, **options: Any) -> CTCEarlyExitBrain:
    """A Brain that recognises many tones, more of them at the second exit."""
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
    """Learn from other tones than it was trained on."""
    brain.learn_selection(
        "dev", tone_dataset(utterances, seed=1), LOADER, texts()
    )


def made(folder: Path) -> list[str]:
    """What exit selection wrote into the folder of checkpoints."""
    found = [*(folder / "save").glob("exit_*")]
    found += (folder / "save/policies").glob("*")
    return sorted(path.name for path in found)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, CTCEarlyExitBrain, Trace]:
    """Output folder, Brain after learning, and the trace of a test set."""
    folder = tmp_path_factory.mktemp("trained")
    brain = trained_brain(folder, exit_budget="wer=+10%")
    learn(brain)
    trace = brain.evaluate_exits("test", tone_dataset(24, seed=2), LOADER)
    return folder, brain, trace


def test_the_model_leaves_something_to_choose(trained):
    """Or the tests below would say little."""
    trace = trained[2]
    errors_E = trace.errors_NE.sum(0)
    assert 0 < errors_E[1] < errors_E[0] < trace.words_N.sum()
    assert len(np.unique(trace.evidence_NE("learned")[:, 0])) == 24


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
    assert [*brain.policies] == POLICIES
    for name, given in brain.policies.items():
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
    assert brain.dev_trace.records == dev.records
    selector = read_selector(folder / "save" / SELECTOR)
    in_sample_NE = selector.scores(dev.evidence)
    left_out_NE = dev.evidence_NE("learned")
    assert np.abs(in_sample_NE - left_out_NE)[:, 0].max() > 0.01
    naive = brain.policies["learned.naive"]
    choice_N = naive.choose(left_out_NE)
    errors = dev.errors_NE[np.arange(48), choice_N].sum()
    assert naive.calibration.wer == pytest.approx(
        100 * errors / dev.words_N.sum(), abs=1e-3
    )
    assert errors <= 1.1 * dev.errors_NE[:, -1].sum()
    assert trace.evidence_NE("learned") == pytest.approx(
        selector.scores(trace.evidence), rel=1e-5, abs=1e-6
    )


def test_policies_are_read_beside_their_selector(trained, tmp_path):
    """By the command line, from the folder of checkpoints."""
    folder, brain, trace = trained
    learned = [name for name in POLICIES if name.startswith("learned.")]
    text = report_command(
        [folder / "traces" / "test.jsonl.gz"],
        tmp_path,
        as_json=True,
        policies=[folder / f"save/policies/{name}.yaml" for name in learned],
    )
    found = json.loads(text)["sets"]["test"]["policies"]
    given = [brain.policies[name] for name in learned]
    assert [row["name"] for row in found] == [p.name for p in given]
    for row, policy in zip(found, given, strict=True):
        choice_N = policy.choose(trace.evidence_NE("learned"))
        shares = np.bincount(choice_N, minlength=2) / 24
        assert row["exit_shares"] == pytest.approx(shares, abs=1e-3)


def test_texts_and_seed_reach_the_selection(trained):
    """The same development trace and arguments give the same scores."""
    folder, brain, _ = trained
    dev = read_trace(folder / "traces" / "dev.jsonl.gz")
    (bare,) = brain._decode_set("dev", tone_dataset(48, seed=1), LOADER)
    _, again = Selection.fit(bare, texts(), brain.hparams.seed)
    for name in GIVEN:
        assert again.evidence_NE(name) == pytest.approx(
            dev.evidence_NE(name), rel=1e-4, abs=1e-4
        )


def test_no_budget_no_policy(tmp_path):
    """What was learned stays."""
    brain = brain_in(tmp_path, exit_budget=None, average_checkpoints=0)
    learn(brain)
    assert brain.policies == {} and made(tmp_path) == [SELECTOR]
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
    assert brain.selection is None
    assert {p.criterion for p in brain.policies.values()} == {"entropy"}
    assert made(tmp_path) == [f"{name}.yaml" for name in brain.policies]
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
    assert brain.selection is None and made(tmp_path) == []
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


@pytest.mark.parametrize(
    ("budget", "layers"),
    [
        (None, EXITS),
        ("wer=+0.5", EXITS),
        ("macs=4.2G", EXITS),
        ("layers=2", EXITS),
        ("layers=2", (4,)),  # nothing to choose, nothing to refuse
    ],
)
def test_a_right_budget_is_let_through(budget, layers):
    check_exit_budget(budget, layers)
