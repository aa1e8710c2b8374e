"""The file of a search: what it searches, and what is refused at once.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml

from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps.definition import BaseYAML, Definition, Parameter
from speechbrain_ee.sweeps.study import StudyFolder
from speechbrain_ee.sweeps.trial import valid_wers

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted(
    path
    for path in ROOT.glob("hparams/sweeps/*/hpopt.yaml")
    if path.parent.name != "orion"
)
WER = {"metric": "wer", "set": "dev"}
SPACE = {
    "lr": {"low": 1e-5, "high": 0.1, "log": True},
    "depth": {"low": 2, "high": 9},
    "exits": {"choices": [[2, 4], [4], None, {"a": 1}]},
    "drop": {"low": 0.0, "high": 0.35, "step": 0.1},
    "wide": {"low": -2.0, "high": 3.7},
    "count": {"low": 1, "high": 300, "log": True},
    "only": {"choices": ["x"]},
}


def of_space(sampler: str, trials: int | None = None, **space) -> Definition:
    """A search of which the space alone matters."""
    given = {"base": "b", "script": "s", "objectives": [WER], "seed": 5}
    return Definition.parse(
        {**given, "sampler": sampler, "trials": trials, "space": space}
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_searches_that_come_along_fit_their_yaml(path: Path, tmp_path) -> None:
    definition = Definition.read(path)
    study = StudyFolder.make(tmp_path, definition)
    assert study.definition == definition
    # every single choice makes a YAML that has it
    first = {
        each.key: each.values[0] if each.values else each.distribution.low
        for each in definition.space
    }
    for parameter in definition.space:
        for value in parameter.values or (parameter.distribution.high,):
            values = dict(first)
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
        ({"sampler": "best"}, "random, qmc, grid, tpe"),
        ({"trials": None}, "trials: missing"),
        ({"sampler": "grid"}, "values that can be counted"),
        ({"storage": 3}, "storage: 3 is no URL"),
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


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_points_follow_from_seed_and_number_alone(sampler):
    search = of_space(sampler, 32, **SPACE)
    points = search.points()
    assert replace(search, trials=8).points() == points[:8]
    assert replace(search, seed=6).points() != points
    for parameter in search.space:
        known = parameter.distribution
        for point in points:
            shown = parameter.shown(point[parameter.key])
            inner = known.to_internal_repr(shown)
            assert known._contains(inner)
            again = parameter.meant(known.to_external_repr(inner))
            assert again == point[parameter.key]
    assert len({point["lr"] for point in points}) == 32
    assert all(len(f"{point['lr']:e}".rstrip("0")) < 13 for point in points)
    if sampler == "qmc":  # more even than chance, choices as well
        for key in ("depth", "exits"):
            counts = Counter(str(point[key]) for point in points)
            assert len(set(counts.values())) == 1


def test_grid_is_the_whole_product():
    space = {key: SPACE[key] for key in ("depth", "exits", "drop")}
    search = of_space("grid", **space)
    drawn = [tuple(point.values()) for point in search.points()]
    assert search.trials == len(drawn) == 8 * 4 * 4
    assert drawn == list(
        itertools.product(
            range(2, 10), SPACE["exits"]["choices"], [0.0, 0.1, 0.2, 0.3]
        )
    )
    assert of_space("grid", 5, **space).points() == search.points()[:5]


def test_tpe_goes_where_it_was_good(search, tmp_path):
    file = search(sampler="tpe", space={"lr": {"low": 0.0, "high": 1.0}})
    folder = StudyFolder.make(tmp_path / "study", Definition.read(file))
    study = optuna.create_study(directions=["minimize"])
    (parameter,) = folder.definition.space

    def ask(point: int) -> tuple[optuna.Trial, float]:
        study.sampler = folder.sampler(point)
        trial = study.ask()
        return trial, parameter.suggest(trial)

    points = []
    for point in range(40):
        trial, x = ask(point)
        points.append(x)
        study.tell(trial, (x - 0.3) ** 2)
    late = points[20:]
    # chance alone would have a fifth of them there
    assert sum(abs(x - 0.3) < 0.1 for x in late) > 2 * len(late) / 5
    fresh = [optuna.create_study(sampler=folder.sampler(n)) for n in (3, 3, 4)]
    first = [parameter.suggest(each.ask()) for each in fresh]
    assert first[0] == first[1] != first[2]


@pytest.mark.parametrize(
    "entry, named",
    [
        (3, "no mapping"),
        ({"low": 1, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1.0, "log": True}, "low > 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "exclude each other"),
        ({"low": 1, "high": "9"}, "high: '9' is no number"),
        ({"low": 1, "high": 9, "max": 3}, "'max' is no field"),
        ({"low": 1, "high": 9, "step": 0}, "step > 0"),
        ({"low": 1.5, "high": 9, "kind": "int"}, "low: 1.5 is not for"),
        ({"kind": "normal"}, "float, int, categorical, together"),
        ({"choices": []}, "at least one"),
        ({"choices": [[1], [1]]}, "there twice"),
        ({"kind": "together", "choices": [1]}, "are mappings"),
        ({"low": 1, "high": float("inf")}, "is not for"),
        ({"low": 1, "high": 2, "log": 1}, "neither true nor false"),
    ],
)
def test_what_cannot_be_searched_is_told(entry, named):
    with pytest.raises(InputError, match="space, key") as told:
        Parameter.parse("key", entry)
    assert named in str(told.value)
