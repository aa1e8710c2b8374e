"""Mistakes in a YAML or on the command line are named, not traced.

Protects: the error for an unknown key, an unknown override, a missing value,
a missing file and broken YAML; and that overrides arrive.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.options import (
    LOCK_FILE,
    OPTIONAL_KEYS,
    READ_KEYS,
    load_options,
    make_output_folder,
)


@pytest.fixture
def small_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    lines = [f"{key}: null" for key in sorted(READ_KEYS)]
    text = "\n".join(lines) + "\n"
    text = text.replace("seed: null", "seed: 3")
    text = text.replace("data_folder: null", "data_folder: !PLACEHOLDER")
    text = text.replace(
        "opt_class: null", "opt_class: !name:torch.optim.SGD\n    lr: !ref <lr>"
    )
    text += "lr: 0.1\nmax_grad_norm: 5.0\n"
    text += "sgd: !new:torch.nn.Linear\n    in_features: 2\n"
    text += "    out_features: !ref <width>\nwidth: 3\n"
    text += "head: !new:torch.nn.Identity\n    x: !ref <sgd>\n"
    text = text.replace("modules: null", "modules:\n    head: !ref <head>")
    path.write_text(text)
    return path


def test_optional_keys_need_not_be_in_the_yaml(small_yaml: Path) -> None:
    """They have their defaults, the YAML's value, or the command line's."""
    given = "data_folder: d"
    options = load_options(str(small_yaml), given)
    assert {key: options[key] for key in OPTIONAL_KEYS} == OPTIONAL_KEYS
    options = load_options(str(small_yaml), f"{given}\noverthinking: True")
    assert options["overthinking"] is True and options["in_domain"] is None
    text = small_yaml.read_text("utf-8")
    small_yaml.write_text(f"{text}in_domain: test\n", "utf-8")
    options = load_options(str(small_yaml), given)
    assert options["overthinking"] is False and options["in_domain"] == "test"
    options = load_options(str(small_yaml), f"{given}\nin_domain: dev")
    assert options["in_domain"] == "dev"


def test_seed_comes_before_the_weights(small_yaml: Path) -> None:
    """The same seed builds the same weights, another one others."""
    weights = [
        load_options(str(small_yaml), f"data_folder: /x\nseed: {seed}")["sgd"]
        .weight.flatten()
        .tolist()
        for seed in (3, 4, 3)
    ]
    assert weights[0] == weights[2] != weights[1]


def test_option_without_value(small_yaml: Path) -> None:
    """A placeholder that was not given, and how to give it."""
    with pytest.raises(InputError, match="data_folder") as error:
        load_options(str(small_yaml))
    assert "--data_folder=" in str(error.value)


@pytest.mark.parametrize("overrides", ["exit_layers: [2", "width: a: b"])
def test_broken_override(small_yaml: Path, overrides: str) -> None:
    """The same on the command line."""
    with pytest.raises(InputError, match="command line"):
        load_options(str(small_yaml), overrides)


@pytest.mark.parametrize("value", ["many", "-1", "[3]"])
def test_value_that_an_object_refuses(small_yaml: Path, value: str) -> None:
    """Whatever an object raises while it is built ends in one paragraph."""
    with pytest.raises(InputError, match="cannot be loaded") as error:
        load_options(str(small_yaml), f"data_folder: /x\nwidth: {value}")
    assert "\n" not in str(error.value)


def test_output_folder(tmp_path: Path) -> None:
    """Made with its parents; a file in its way is an error with its name."""
    make_output_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
    left = [path.name for path in (tmp_path / "a" / "b").iterdir()]
    assert left == [LOCK_FILE]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="output_folder: .*file"):
        make_output_folder(str(tmp_path / "file"))
