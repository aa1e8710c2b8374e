"""A model as plain data: out of the YAML, through JSON, built again.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from pathlib import Path

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.architecture import (
    CLASSES,
    Architecture,
    Hyperparams,
)
from tests.inference.runs import SYSTEMS, write_run

HEADS = {"class": "CTCHeads", "exit_layers": [1], "d_model": 8, "vocab_size": 5}
FBANK = {"class": "Fbank", "n_mels": 10}


def shapes(model):
    return {name: t.shape for name, t in model.state_dict().items()}


def from_yaml(folder: Path, text: str) -> Hyperparams:
    (folder / "hyperparams.yaml").write_text(text, "utf-8")
    return Hyperparams(folder / "hyperparams.yaml")


@pytest.mark.parametrize("system", SYSTEMS)
def test_tree_builds_what_the_yaml_builds(run_of, system):
    run = run_of(system)
    found, backbone = Hyperparams(
        run.folder / "hyperparams.yaml"
    ).architecture()
    tree = json.loads(json.dumps(found.tree))
    assert tree == found.tree
    model = Architecture(tree).build(backbone)
    assert shapes(model) == shapes(run.model)
    assert model.exit_layers == run.model.exit_layers == found.exit_layers
    assert not model.training
    assert found.uses_backbone == (system == "tiny_ssl")
    text = json.dumps(tree)
    assert str(run.folder.parent) not in text
    assert "Augmenter" not in text and "feature_augment" not in text


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("exits", [1, 2])
def test_truncated_tree_builds_the_truncated_model(run_of, system, exits):
    run = run_of(system)
    found, backbone = Hyperparams(
        run.folder / "hyperparams.yaml"
    ).architecture()
    small = found.truncated(exits).build(backbone)
    assert shapes(small) == shapes(run.model.truncated(exits))
    assert small.exit_layers == run.model.exit_layers[:exits]
    assert found.exit_layers == run.model.exit_layers


def test_building_uses_no_random_number_up(run_of):
    architecture, _ = Hyperparams(
        run_of("digits").folder / "hyperparams.yaml"
    ).architecture()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    architecture.build()
    assert torch.equal(torch.rand(3), expected)


def test_one_object_in_two_places_stays_one(tmp_path):
    hparams = from_yaml(
        tmp_path,
        "a: &a !new:speechbrain.lobes.features.Fbank\n  n_mels: 10\n"
        "modules:\n  model:\n    one: *a\n    other: *a\n"
        "    third: !new:speechbrain.lobes.features.Fbank\n",
    )
    tree = hparams.architecture()[0].tree
    built = Architecture(json.loads(json.dumps(tree))).build_part()
    assert built["one"] is built["other"] is not built["third"]


def test_functions_and_tuples_are_kept(tmp_path):
    hparams = from_yaml(
        tmp_path,
        "modules:\n  model:\n    a: !name:torch.nn.GELU\n    b: (1, 2)\n"
        "    c: !tuple (3, 4)\n    d: null\n    e: 1.0e-3\n    f: 'on'\n",
    )
    built = hparams.architecture()[0].build_part()
    assert built == {
        "a": torch.nn.GELU,
        "b": [1, 2],
        "c": [3, 4],
        "d": None,
        "e": 0.001,
        "f": "on",
    }


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"class": "os.system", "command": "true"}, "model.class: 'os.system'"),
        ({"class": ["CTCHeads"]}, "model.class"),
        ({"x": [{"function": "os.system"}]}, r"model.x\[0\].function"),
        ({**HEADS, "d_modle": 8}, "unexpected.*'d_modle'.*vocab_size"),
        ({"class": "CTCHeads"}, "key model: missing.*'exit_layers'"),
        ({**HEADS, "d_model": "wide"}, "key model: cannot be built"),
        ({**HEADS, "tied": "no"}, "tied_heads: 'no'"),
        ({"x": {"same_as": "7"}}, "model.x: no object before has id 7"),
        ({"class": "SSLEncoder", "exit_layers": [1]}, "configuration"),
        ({"class": "SSLEncoder", "source": "/etc"}, "model.source"),
        ({"class": "MultiExitEncoder", "feature_augment": 1}, "not an arg"),
        (HEADS, "CTCHeads is no model"),
    ],
)
def test_other_trees_are_refused_by_name(tree, said):
    with pytest.raises(InputError, match=rf"(?s)f\.json, .*{said}"):
        Architecture(tree, "f.json").build()


def test_endless_trees_are_refused():
    tree = HEADS
    for _ in range(3000):
        tree = {"x": tree}
    with pytest.raises(InputError, match="nested too deeply"):
        Architecture(tree).build()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modules:\n  model: &a [*a]\n", "refers to itself"),
        ("x: 1\n", "modules.model: missing"),
        ("- 1\n", "holds no keys"),
        ("a: [\n", "not a YAML file"),
        ("modules: {model: !new:os.system {a: 1}}", "!new:os.system"),
        ("modules: {model: !apply:os.system [a]}", "!apply:os.system"),
        ("modules: {model: !name:os.system }", "!name:os.system"),
        ("modules: {model: !!python/name:os.system }", "python/name"),
        (
            "modules: {model: !new:speechbrain.lobes.features.Fbank [1]}",
            "by name",
        ),
        (
            "a: &a !new:speechbrain.lobes.features.Fbank\n"
            "modules: {model: {x: !apply:getattr [*a, __class__]}}",
            "'__class__' is not one of d_model",
        ),
    ],
)
def test_other_yamls_are_refused_by_key(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        from_yaml(tmp_path, text).architecture()


@pytest.mark.parametrize("tag", ["!apply:", "!new:", "!!python/object/apply:"])
def test_nothing_of_a_yaml_is_executed(tmp_path, tag):
    run = write_run(tmp_path / "run", exit_layers=[1])
    path = run.folder / "hyperparams.yaml"
    marker = tmp_path / "marker"
    bomb = f"{tag}os.system\n  - touch {marker}\n"
    path.write_text(f"bomb: {bomb}{path.read_text('utf-8')}", "utf-8")
    hparams = Hyperparams(path)
    hparams.architecture()[0].build()
    with pytest.raises(InputError, match="key bomb"):
        hparams.value("bomb")
    assert not marker.exists()


def test_aliases_that_explode_are_refused(tmp_path):
    text = "a0: &a0 [1, 1]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
    )
    hparams = from_yaml(tmp_path, text + "modules: {model: *a39}\n")
    with pytest.raises(InputError, match="too much for a model"):
        hparams.architecture()


def test_options_are_plain_values(run_of):
    hparams = Hyperparams(run_of("digits_aed").folder / "hyperparams.yaml")
    assert hparams.value("sample_rate") == 16000
    assert hparams.value("exit_layers") == [1, 2, 3, 4, 5, 6]
    assert hparams.value("no_such", 7) == 7
    dotted = "speechbrain_ee.exits.decoding.SearchOptions"
    assert hparams.arguments("search", dotted)["beam_size"] == 10
    assert hparams.arguments("no_such", dotted) == {}
    for ask in ("model", "no_such"):
        with pytest.raises(InputError, match=f"key {ask}"):
            hparams.value(ask)
    with pytest.raises(InputError, match="key search"):
        hparams.arguments("search", "os.system")


def test_every_class_of_the_table_is_there():
    for name, dotted in CLASSES.items():
        assert dotted.endswith(f".{name}")
        module, _, attribute = dotted.rpartition(".")
        assert isinstance(
            getattr(__import__(module, fromlist=[attribute]), attribute), type
        )
