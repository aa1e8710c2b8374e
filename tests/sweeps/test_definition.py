"""The file of a search: what it searches, and what is refused at once.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
from collections import Counter
from pathlib import Path

import optuna
import pytest
import yaml
from msgspec.structs import replace

from speechbrain_ee.errors import InputError
from speechbrain_ee.schema import convert
from speechbrain_ee.sweeps.definition import BaseYAML, Definition, Parameter
from speechbrain_ee.sweeps.study import StudyFolder
from speechbrain_ee.sweeps.trial import valid_wers

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = [
    ROOT / f"hparams/sweeps/{n}/hpopt.yaml" for n in ("exits", "distillation")
]
WER = {"metric": "wer", "set": "dev"}
ONE = {"objectives": [WER]}
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
    given |= {"sampler": sampler, "trials": trials, "space": space}
    return convert(given, Definition, "hpopt.yaml", "mend it")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_searches_that_come_along_fit_their_yaml(path, tmp_path):
    definition = Definition.read(path)
    study = StudyFolder.make(tmp_path, definition)
    assert study.definition == definition
    # every single choice makes a YAML that has it
    space = definition.space.items()
    first = {
        key: each.values[0] if each.values else each.distribution.low
        for key, each in space
    }
    for name, parameter in space:
        for value in parameter.values or (parameter.distribution.high,):
            text = study.yaml({**first, name: value}, tmp_path)
            for key, wanted in parameter.settings(name, value).items():
                node = yaml.compose(text)
                for part in key.split("."):
                    (node,) = [v for k, v in node.value if k.value == part]
                assert yaml.safe_load(yaml.serialize(node)) == wanted


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"sampling": "qmc"}, "key sampling: not known"),
        ({"base": None}, "key base: missing"),
        ({"base": "no.yaml"}, "no.yaml: there is no such file"),
        ({"script": "no.py"}, "no.py is not there"),
        ({"space": {"lrr": {"low": 1, "high": 2}}}, "Did you mean lr?"),
        ({"space": {"lr.x": {"low": 1, "high": 2}}}, "lr of lr.x is not a"),
        ({"space": {"data_folder": 3}}, "key space.data_folder: 3 does not"),
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
        ({"objectives": []}, "key objectives: [] does not fit"),
        ({"objectives": [WER] * 2}, "there twice"),
        ({"objectives": [{**WER, "metric": "cer"}]}, "wer, macs"),
        ({"objectives": [{**WER, "at": 0}]}, "key objectives[0].at: 0"),
        ({"prune": {}}, "one objective only"),
        ({**ONE, "prune": {"kind": "x"}}, "median, halving"),
        ({**ONE, "prune": {"upper": 3}}, "kind threshold, and no other"),
        ({"prune": {}, "objectives": [{**WER, "metric": "macs"}]}, "WER"),
        ({"trials": None}, "trials: missing"),
        ({"sampler": "grid"}, "values that can be counted"),
        ({"stale_s": "long"}, "key stale_s: 'long'"),
    ],
)
def test_mistakes_are_told_with_their_key(changes, named, search, tmp_path):
    with pytest.raises(InputError) as told:
        definition = Definition.read(search(**changes))
        StudyFolder.make(tmp_path / "study", definition)
    assert named in str(told.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    "entry, named",
    [
        ({"low": 1, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1.0, "log": True}, "low > 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "exclude each other"),
        ({"low": 1, "high": 9, "step": 0}, "step > 0"),
        ({"low": 1.5, "high": 9, "kind": "int"}, "whole numbers"),
        ({"low": 1, "choices": [2]}, "needs choices only"),
        ({"kind": "normal"}, "float, int, categorical, together"),
        ({"choices": []}, "one or more"),
        ({"choices": [[1], [1]]}, "there twice"),
        ({"kind": "together", "choices": [1]}, "are mappings"),
        ({"low": 1, "high": float("inf")}, "inf does not fit"),
    ],
)
def test_what_cannot_be_searched_is_told(entry, named):
    with pytest.raises(InputError, match=r"x.yaml, key lr\b") as told:
        convert({"lr": entry}, dict[str, Parameter], "x.yaml", "mend it")
    assert named in str(told.value)


def test_a_search_runs_no_code(search):
    file = search()
    text = file.read_text("utf-8")
    file.write_text(text + "\nlauncher: !!python/name:os.system\n", "utf-8")
    with pytest.raises(InputError, match="not YAML without tags"):
        Definition.read(file)


def test_yamls_of_the_recipe_survive_unchanged():
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
def test_values_are_read_again_by_yaml_1_1(value):
    text = BaseYAML("lr: 0.1\nx: 1\n").with_values({"lr": value})
    again = yaml.safe_load(text)
    assert again == {"lr": value, "x": 1}
    assert type(again["lr"]) is type(value)


def test_only_whole_lines_of_a_log_count():
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
    for key, parameter in search.space.items():
        known = parameter.distribution
        for point in points:
            inner = known.to_internal_repr(parameter.shown(point[key]))
            assert known._contains(inner)
            again = parameter.meant(known.to_external_repr(inner))
            assert again == point[key]
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
    columns = range(2, 10), SPACE["exits"]["choices"], [0.0, 0.1, 0.2, 0.3]
    assert drawn == list(itertools.product(*columns))
    assert search.trials == len(drawn)
    assert of_space("grid", 5, **space).points() == search.points()[:5]


def test_tpe_goes_where_it_was_good(search, tmp_path):
    file = search(sampler="tpe", space={"lr": {"low": 0.0, "high": 1.0}})
    folder = StudyFolder.make(tmp_path / "study", Definition.read(file))
    study = optuna.create_study(directions=["minimize"])
    parameter = folder.definition.space["lr"]
    points = []
    for point in range(40):
        study.sampler = folder.sampler(point)
        trial = study.ask()
        points.append(parameter.suggest("lr", trial))
        study.tell(trial, (points[-1] - 0.3) ** 2)
    late = points[20:]
    # chance alone would have a fifth of them there
    assert sum(abs(x - 0.3) < 0.1 for x in late) > 2 * len(late) / 5
    fresh = [optuna.create_study(sampler=folder.sampler(n)) for n in (3, 3, 4)]
    first = [parameter.suggest("lr", each.ask()) for each in fresh]
    assert first[0] == first[1] != first[2]
