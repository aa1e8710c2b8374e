"""The file of a search: what is refused before anything runs.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import yaml

from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps.base_yaml import BaseYAML
from speechbrain_ee.sweeps.definition import Definition
from speechbrain_ee.sweeps.pruning import valid_wers
from speechbrain_ee.sweeps.study import StudyFolder

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted(
    path
    for path in ROOT.glob("hparams/sweeps/*/hpopt.yaml")
    if path.parent.name != "orion"
)
WER = {"metric": "wer", "set": "dev"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_searches_that_come_along_fit_their_yaml(path: Path, tmp_path) -> None:
    definition = Definition.read(path)
    study = StudyFolder.make(tmp_path, definition)
    assert study.definition == definition
    # every single choice makes a YAML that has it
    for parameter in definition.space:
        for value in parameter.values or (parameter.value(0.5),):
            values = {each.key: each.value(0.0) for each in definition.space}
            text = study.yaml({**values, parameter.key: value}, tmp_path)
            tree = BaseYAML(text)
            for key, wanted in parameter.settings(value).items():
                tree.check(key, "test")
                node = yaml.compose(text)
                for part in key.split("."):
                    (node,) = [v for k, v in node.value if k.value == part]
                plain = yaml.safe_load(yaml.serialize(node))
                assert plain == wanted


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"sampling": "qmc"}, "unknown key 'sampling'"),
        ({"base": None}, "base: missing"),
        ({"base": "no.yaml"}, "no.yaml cannot be read"),
        ({"script": "no.py"}, "no.py is not there"),
        ({"space": {"lrr": {"low": 1, "high": 2}}}, "Did you mean lr?"),
        ({"space": {"lr.x": {"low": 1, "high": 2}}}, "is no mapping"),
        ({"space": {"data_folder": 3}}, "space, data_folder"),
        (
            {
                "space": {
                    "lr": {"choices": [1]},
                    "both": {"kind": "together", "choices": [{"lr": 1}]},
                }
            },
            "lr is searched in two places",
        ),
        ({"overrides": {"nothing": 1}}, "no key nothing"),
        ({"overrides": [1]}, "overrides: [1] is no mapping"),
        ({"objectives": []}, "objectives: missing"),
        ({"objectives": [WER] * 2}, "there twice"),
        ({"objectives": [WER, {**WER, "at": 1}, {**WER, "at": 2}]}, "two"),
        ({"objectives": [{"metric": "cer", "set": "dev"}]}, "wer, macs"),
        ({"objectives": [{"metric": "wer"}]}, "`set` is missing"),
        ({"objectives": [{**WER, "at": 0}]}, "no operating point"),
        ({"objectives": [{**WER, "on": 0}]}, "unknown key 'on'"),
        ({"prune": {}}, "one objective only"),
        ({"prune": {"kind": "x"}, "objectives": [WER]}, "median, halving"),
        ({"prune": {"upper": 3}, "objectives": [WER]}, "belongs to kind"),
        ({"prune": {"kind": "threshold"}, "objectives": [WER]}, "needs it"),
        (
            {
                "prune": {"after_epochs": 0},
                "objectives": [{"metric": "wer", "set": "dev"}],
            },
            "after_epochs: 0",
        ),
        ({"prune": {}, "objectives": [{**WER, "metric": "macs"}]}, "WER"),
        ({"trials": 0}, "trials: 0"),
        ({"seed": 1.5}, "seed: 1.5"),
        ({"crashes": 0}, "crashes: 0"),
        ({"stale_s": "long"}, "stale_s: 'long'"),
    ],
)
def test_mistakes_are_told_with_their_key(changes, named, search, tmp_path):
    with pytest.raises(InputError) as told:
        definition = Definition.read(search(**changes))
        StudyFolder.make(tmp_path / "study", definition)
    assert named in str(told.value)
    assert not (tmp_path / "study").exists()


def test_a_search_runs_no_code(search, tmp_path):
    file = search()
    text = file.read_text("utf-8")
    file.write_text(text + "\nlauncher: !!python/name:os.system\n", "utf-8")
    with pytest.raises(InputError, match="no plain YAML"):
        Definition.read(file)


def test_yamls_of_the_recipe_survive_unchanged() -> None:
    for path in sorted(ROOT.glob("hparams/*.yaml")):
        base = BaseYAML.read(path)
        nodes = [
            [
                (event.__class__, getattr(event, "tag", 0), _text(event))
                for event in yaml.parse(text)
            ]
            for text in (base.text, base.with_values({}))
        ]
        assert nodes[0] == nodes[1], path.name


def _text(event: yaml.Event) -> str:
    """The content of an event; True and true are one."""
    return str(getattr(event, "value", "")).lower()


@pytest.mark.parametrize(
    "value", [1e-05, 1e20, 0.1, 3, True, None, "a: b", [1]]
)
def test_values_are_read_again_by_yaml_1_1(value) -> None:
    text = BaseYAML("lr: 0.1\nx: 1\n").with_values({"lr": value})
    again = yaml.safe_load(text)
    assert again == {"lr": value, "x": 1}
    assert type(again["lr"]) is type(value)


def test_only_whole_lines_of_a_log_count() -> None:
    log = (
        "epoch: 1, lr: 1 - valid WER L2: 50, valid WER L12: 1.5e+01\n"
        "Epoch loaded: 2 - test WER L12: 1\n"
        "epoch: 2, lr: 1 - valid WER L2: 40, valid WER L12: 1"
    )
    assert valid_wers(log) == {1: 15.0}
