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
    FUNCTIONS,
    Architecture,
    architecture_of,
    read_backbone,
    read_hyperparams,
    write_backbone,
)
from speechbrain_ee.models.pretrained import encoder_width
from tests.helpers import VOCAB, noise, padded
from tests.inference.runs import SYSTEMS, write_run
from tests.models.pretrained_models import MODELS as FAMILIES
from tests.models.pretrained_models import pretrained_model, write_model

HEADS = {"class": "CTCHeads", "exit_layers": [1], "d_model": 8, "vocab_size": 5}
FBANK = "!new:speechbrain.lobes.features.Fbank"


def shapes(model):
    return {name: t.shape for name, t in model.state_dict().items()}


def of_run(folder: Path) -> Architecture:
    path = folder / "hyperparams.yaml"
    return architecture_of(read_hyperparams(path), path)


def from_yaml(folder: Path, text: str) -> Architecture:
    (folder / "hyperparams.yaml").write_text(text, "utf-8")
    return of_run(folder)


@pytest.mark.parametrize("system", SYSTEMS)
def test_tree_builds_what_the_yaml_builds(run_of, system):
    run = run_of(system)
    found = of_run(run.folder)
    text = json.dumps(found.tree)
    tree = json.loads(text)
    assert tree == found.tree
    for exits in (len(run.model.exit_layers), 1, 2):
        wanted = run.model.truncated(exits)
        cut = Architecture(tree, backbone=found.backbone).truncated(
            wanted.exit_layers
        )
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        model = cut.build()
        assert torch.equal(torch.rand(3), expected)  # none was used up
        assert shapes(model) == shapes(wanted) and not model.training
        assert model.exit_layers == wanted.exit_layers
    assert found.uses_backbone == (system == "tiny_ssl")
    assert str(run.folder.parent) not in text
    assert "Augmenter" not in text and "feature_augment" not in text


def test_what_a_yaml_can_say_is_kept(tmp_path):
    """One object in two places, functions, tuples, numbers."""
    found = from_yaml(
        tmp_path,
        f"a: &a {FBANK}\n  n_mels: 10\n"
        f"modules:\n  model:\n    one: *a\n    other: *a\n    third: {FBANK}\n"
        "    a: !name:torch.nn.GELU\n    b: (1, 2)\n    c: !tuple (3, 4)\n"
        "    d: null\n    e: 1.0e-3\n    f: 'on'\n",
    )
    tree = json.loads(json.dumps(found.tree))
    built = Architecture(tree).build(dict)
    assert built.pop("one") is built.pop("other") is not built.pop("third")
    values = {"b": [1, 2], "c": [3, 4], "d": None, "e": 0.001, "f": "on"}
    assert built == {"a": torch.nn.GELU, **values}


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
        (HEADS, "EarlyExitModel is expected, not a CTCHeads"),
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
        ("a: 2026-99-99\n", "not a YAML file"),
        ("!new:os.system {a: 1}\n", "not a YAML file"),
        ("modules: {model: {a: .nan}}", "nan cannot be kept"),
        ("modules: {model: 1}", "1 is not a model"),
        ("modules: {model: !new:os.system {a: 1}}", "key model: os.system"),
        ("modules: {model: !apply:os.system [a]}", "!apply:os.system"),
        ("modules: {model: !name:os.system }", "key model: os.system"),
        ("modules: {model: !!python/name:os.system }", "python/name"),
        (f"modules: {{model: {FBANK} [1]}}", "by name"),
        (
            f"a: &a {FBANK}\n"
            "modules: {model: {x: !apply:getattr [*a, __class__]}}",
            "'__class__' is not d_model",
        ),
        (
            "a0: &a0 [1, 1]\n"
            + "".join(
                f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
            )
            + "modules: {model: *a39}\n",
            "too much for a model",
        ),
    ],
)
def test_other_yamls_are_refused_by_key(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        from_yaml(tmp_path, text)


@pytest.mark.parametrize("tag", ["!apply:", "!new:", "!!python/object/apply:"])
def test_nothing_of_a_yaml_is_executed(tmp_path, tag):
    run = write_run(tmp_path / "run", exit_layers=[1])
    text = (run.folder / "hyperparams.yaml").read_text("utf-8")
    marker = tmp_path / "marker"
    bomb = f"bomb: {tag}os.system\n  - touch {marker}\n"
    from_yaml(tmp_path, bomb + text).build()
    assert not marker.exists()


def test_every_class_of_the_tables_is_there():
    for name, dotted in {**CLASSES, **FUNCTIONS}.items():
        module = dotted.removesuffix(f".{name}")
        found = getattr(__import__(module, fromlist=[name]), name)
        assert isinstance(found, type)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["PretrainedEncoder", "SSLEncoder"])
def test_pretrained_encoders_of_every_family(tmp_path, name, kind):
    """Written without weights, built as wide and as deep as it was cut."""
    model = pretrained_model(write_model(tmp_path / "source", name))
    small = model.truncated(2)
    write_backbone(tmp_path, small)
    heads = {"class": "CTCHeads", "d_model": 16, "vocab_size": VOCAB}
    encoder = {"class": kind}
    for part in (heads, encoder):
        part["exit_layers"] = [1, 2]
    tree = {"class": "EarlyExitModel", "encoder": encoder, "heads": heads}
    built = Architecture(tree, backbone=read_backbone(tmp_path)).build()
    built.load_state_dict(small.state_dict())
    batch = padded([noise(7000, 1), noise(4100, 2)])
    with torch.no_grad():
        for one, other in zip(small(*batch), built(*batch)):
            assert torch.equal(one.log_probs_BTV, other.log_probs_BTV)
    config = json.loads((tmp_path / "backbone/config.json").read_text())
    assert encoder_width(config) == 16
