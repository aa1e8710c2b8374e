"""The worked example of a criterion does what the pages claim.

Axes: N utterances of a trace, E exits, B utterances of a batch, T frames.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from speechbrain_ee.__main__ import main
from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.criteria import (
    criterion,
    criterion_names,
    get_criterion,
    get_measure,
    measure_names,
    registry,
)
from speechbrain_ee.exits.criteria.registry import load_criteria
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.exits.trace_file import (
    read_trace,
    write_trace,
)
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.training.options import load_options
from tests.helpers import (
    padded,
)
from tests.inference.live_runs import (
    EXITS,
    live_model,
    runner_of,
    thresholds_between,
    trace_of,
    waves,
)

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
CRITERIA = EXAMPLES / "new_criterion.py"
HPARAMS = EXAMPLES.parent.parent / "hparams"
ADDED = ("doubtful_share", "lasting_doubt")


@pytest.fixture
def registers() -> Iterator[None]:
    """What a test registers is taken back."""
    before = {*measure_names()}, {*criterion_names()}
    modules = {*sys.modules}
    yield
    for kept, known, names in (
        (before[0], registry._MEASURES, measure_names()),
        (before[1], registry._CRITERIA, criterion_names()),
    ):
        for name in {*names} - kept:
            known.pop(name)
    for name in {*sys.modules} - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_file():
            if name.startswith(("new_", "bad_", "mine")):
                del sys.modules[name]


@pytest.fixture
def added(registers: None) -> tuple[str, ...]:
    """The example's criteria, registered."""
    return load_criteria(CRITERIA)


def output_of(probs: list[list[float]], lengths: list[int]) -> ExitOutput:
    """An exit that gives token 1 these probabilities, the blank the rest."""
    probs_BT = torch.tensor(probs)
    log_probs_BTV = torch.stack([1 - probs_BT, probs_BT], -1).log()
    return ExitOutput(log_probs_BTV, torch.tensor(lengths), 2)


def test_the_new_measure_by_hand(added):
    """The one test that a new criterion has to bring along."""
    output = output_of(
        # two tokens, of which one is doubtful; nothing; padding left out
        [[0.55, 0.1, 0.9, 0.9], [0.1, 0.2, 0.1, 0.2], [0.8, 0.1, 0.51, 0.51]],
        [4, 4, 2],
    )
    found = get_measure("doubtful_share").function(ExitView(output))
    assert found.tolist() == [0.5, 1.0, 0.0]
    strict = get_measure("doubtful_share:limit=0.95").function(ExitView(output))
    assert strict.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(InputError, match="limit.*from 0 to 1"):
        get_measure("doubtful_share:limit=2")


@pytest.fixture
def trace_file(added, tmp_path: Path) -> Path:
    """What evaluation records of a model when the criteria are there."""
    trace = trace_of(live_model(), waves(range(4000, 24000, 500)))
    path = tmp_path / "test.jsonl.gz"
    write_trace(path, trace.header, trace.records)
    return path


def run(*arguments: object) -> None:
    """A command, with the example's criteria."""
    main([*map(str, arguments), "--criteria", str(CRITERIA)])


def test_new_criteria_are_in_every_table_and_figure(
    trace_file, tmp_path, capsys
):
    out = tmp_path / "report"
    policy = tmp_path / "policy.yaml"
    calibrate = ("calibrate", "--trace", trace_file, "--budget", "layers=3")
    run(*calibrate, "--criterion", ADDED[0], "--out", policy)
    assert read_policy(policy).criterion == ADDED[0]
    run("report", "--trace", trace_file, "--out", out, "--policy", policy)
    shown = capsys.readouterr().out
    stored = json.loads((out / "report.json").read_text("utf-8"))
    (test_set,) = stored["sets"].values()
    page = (out / "report.html").read_text("utf-8")
    table = (out / "criteria.csv").read_text("utf-8")
    for name in ADDED:
        said = name.replace("_", " ")
        assert name in test_set["criteria"]
        assert name in table
        assert f"\n{said} " in shown
        assert said in page
    assert get_criterion(ADDED[0]).formula in page.replace("&lt;", "<")
    # in the figure, as the best of its family (the leaders' legend)
    from speechbrain_ee.evaluation.analysis import analyse
    from speechbrain_ee.evaluation.theme import leaders

    analysis = analyse(read_trace(trace_file))
    assert {*leaders([analysis])[analysis.key]} & {*ADDED}


@pytest.mark.parametrize("name", ADDED)
def test_new_criteria_decide_live_as_their_trace_predicts(added, name):
    model = live_model()
    trace = trace_of(model, waves())
    assert ADDED[0] in trace.evidence.names
    scores_NE = get_criterion(name).scores(trace.evidence)
    assert len(np.unique(scores_NE)) >= 3
    for threshold in thresholds_between(scores_NE):
        policy = LivePolicy.of(ThresholdPolicy(name, threshold), EXITS)
        heard = runner_of(model).run(*padded(waves()), policy)
        chosen = policy.rule.choose(scores_NE)
        assert [one.exit - 1 for one in heard] == chosen.tolist()


@pytest.mark.parametrize("given", [[str(CRITERIA)], str(CRITERIA)])
def test_train_py_takes_them_from_the_yaml_or_its_command_line(
    registers, given, tmp_path
):
    text = (HPARAMS / "digits.yaml").read_text("utf-8")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(f"{text}\ncriteria: {json.dumps(given)}\n", "utf-8")
    paths = f"data_folder: {tmp_path}\noutput_folder: {tmp_path}/out\n"
    load_options(str(yaml), paths)
    assert criterion_names()[-2:] == ADDED
    # a module of the same file under another name is the same module
    assert load_criteria(CRITERIA) == ()
    with pytest.raises(InputError, match="none.py cannot be imported"):
        load_options(str(yaml), f"{paths}criteria: none.py\n")


def test_unknown_criteria_say_how_to_load_ones_own(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        missing = str(tmp_path / "mine.py")
        report = ["report", "--trace", "no.jsonl", "--out", str(tmp_path)]
        main([*report, "--criteria", missing])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "mine.py cannot be imported (no such file)" in error
    with pytest.raises(InputError, match="--criteria"):
        get_criterion("doubtful_share")


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1", "registers no criterion"),
        ("x = ", "cannot be imported .*invalid syntax"),
        (
            "from speechbrain_ee.exits.criteria import criterion\n"
            "@criterion('entropy', formula='f', source='s')\n"
            "def mine(evidence): return None",
            "'entropy' is registered twice: by .*frames.entropy and by "
            "bad_file.mine",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(registers, tmp_path, text, message):
    path = tmp_path / "bad_file.py"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        load_criteria(path)
    assert "bad_file" not in sys.modules or text == "x = 1"
    with pytest.raises(InputError, match="no_such_module"):
        load_criteria("no_such_module")


def test_a_cell_that_runs_again_replaces_its_criterion(registers):
    """As in a notebook; another function of that name is refused."""

    def cell(value: float) -> None:
        @criterion("mine", formula="f", source="s")
        def mine(evidence):
            return np.full(evidence.shape, value)

    cell(1.0)
    cell(2.0)
    trace = trace_of(live_model(), waves()[:1])
    assert (get_criterion("mine").scores(trace.evidence) == 2.0).all()
    with pytest.raises(ValueError, match="twice"):
        criterion("mine", formula="f", source="s")(lambda evidence: None)
