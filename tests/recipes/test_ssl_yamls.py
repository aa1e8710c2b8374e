"""What the YAMLs of pre-trained systems build, on tiny random models.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.options import load_options
from speechbrain_ee.training.regimes import Regime

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
BASE = ("wav2vec2_ctc", "hubert_ctc", "wavlm_ctc")
FROZEN = "hubert_large_frozen"
BACKBONE_SCHEDULE = "lr_annealing_backbone"


def load(system: str, folder: Path, source: Path, more: str = "") -> dict:
    given = f"data_folder: none\noutput_folder: {folder}\nsource: {source}\n"
    return load_options(str(HPARAMS / f"{system}.yaml"), given + more)


def starting(options: dict) -> Any:
    model, regime = options["model"], options["regime"]
    regime.check(model)
    regime.apply(model, 1)
    return model


def learning(module: Any) -> bool:
    return any(each.requires_grad for each in module.parameters())


@pytest.mark.parametrize("system", BASE)
def test_paper_a(
    system: str, tmp_path: Path, ssl_folder: Callable[[str], Path]
) -> None:
    """Six linear heads over twelve layers, the CNN frozen, all else not."""
    options = load(system, tmp_path, ssl_folder(system))
    assert options["regime"] == Regime(freeze_convolutions=True)
    model = starting(options)
    encoder = model.encoder
    assert encoder.config.model_type == system.removesuffix("_ctc")
    assert encoder.exit_layers == (2, 4, 6, 8, 10, 12)
    assert not learning(encoder.convolutions)
    assert not encoder.convolutions.training
    assert learning(encoder.projection) and learning(encoder.layers)
    assert encoder.downsampler is None
    assert model.heads.projection(1) is not model.heads.projection(6)
    assert model.heads.projection(6).in_features == encoder.d_model
    assert model.heads.body(6) is None
    # The rate of the paper, by two optimisers as SpeechBrain has them.
    rates = {options[key].lr for key in ("lr_annealing", BACKBONE_SCHEDULE)}
    assert rates == {0.00001}
    assert options["lr_annealing"] is not options[BACKBONE_SCHEDULE]
    kept = options["checkpointer"].recoverables.values()
    assert any(each is options[BACKBONE_SCHEDULE] for each in kept)


def test_paper_b(tmp_path: Path, ssl_folder: Callable[[str], Path]) -> None:
    """Own bodies and one projection on layers 10 to 24, which stay frozen."""
    options = load(FROZEN, tmp_path, ssl_folder(FROZEN))
    assert options["regime"] == Regime(freeze_backbone=True)
    model = starting(options)
    assert options["encoder"] is model.encoder
    assert model.encoder.exit_layers == tuple(range(10, 25))
    assert not learning(model.encoder) and learning(model.heads)
    assert not model.encoder.layers.training
    assert model.heads.body(1).kind == "feed_forward"
    assert model.heads.body(1) is not model.heads.body(15)
    assert model.heads.projection(1) is model.heads.projection(15)


def test_down_sampling_by_an_override(
    tmp_path: Path, ssl_folder: Callable[[str], Path]
) -> None:
    """As a command line gives it; what it leaves out is the YAML's."""
    source = ssl_folder("tiny_ssl")

    def built(more: str) -> tuple[str, int, int]:
        options = load("tiny_ssl", tmp_path, source, f"downsampling: {more}\n")
        part = options["model"].encoder.downsampler
        return part.method, part.factor, part.kernel_size

    assert built("{method: signal}") == ("signal", 2, 28)
    assert built("{method: convolution}") == ("convolution", 2, 81)
    more = "{method: pooling, factor: 3, kernel_size: 9}"
    assert built(more) == ("pooling", 3, 9)


@pytest.mark.parametrize("system", [*BASE, FROZEN, "tiny_ssl"])
def test_regime_by_an_override(
    system: str, tmp_path: Path, ssl_folder: Callable[[str], Path]
) -> None:
    """By a key of its own, or inside of the block; the rest is the YAML's."""

    def regime(more: str) -> Regime:
        return load(system, tmp_path, ssl_folder(system), more)["regime"]

    own = regime("")
    assert regime("active_exits: 2\n") == replace(own, active_exits=2)
    more = "freeze_convolutions: False\n"
    assert regime(more) == replace(own, freeze_convolutions=False)
    two = {"heads_first_epochs": 1, "unfreeze_per_epoch": 2, "layer_decay": 0.9}
    thawed = replace(own, freeze_backbone=False, **two)
    text = "".join(f"{key}: {value}\n" for key, value in two.items())
    assert regime(f"{text}freeze_backbone: False\n") == thawed
    block = ", ".join(f"{key}: {value}" for key, value in two.items())
    assert regime(f"regime: {{{block}, freeze_backbone: False}}\n") == thawed


def test_the_tiny_system_has_one_optimiser(
    tmp_path: Path, ssl_folder: Callable[[str], Path]
) -> None:
    """All of it learns from the first step, at one rate."""
    options = load("tiny_ssl", tmp_path, ssl_folder("tiny_ssl"))
    assert options["regime"] == Regime(freeze_convolutions=False)
    assert "backbone_opt_class" not in options
    model = starting(options)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert all(name.startswith("encoder.final_norm.") for name in frozen)


@pytest.mark.parametrize(
    "more, culprit",
    [
        ("sample_rate: 8000\n", "sample_rate: 8000 Hz"),
        ("downsampling: {method: drop}\n", "downsampling, key method: 'drop'"),
        ("exit_layers: [2, 14]\n", r"exit_layers: \[2, 14\] must be"),
        ("head: lineaar\n", "head: 'lineaar' is unknown"),
        ("tied_heads: some\n", "tied_heads: 'some' is unknown"),
        ("source: /no/such\n", "source: /no/such does not exist"),
        ("layer_decay: 2\n", "regime: layer_decay: 2"),
        ("regime: {active_exits: 0}\n", "regime: active_exits: 0"),
        ("freeze_backbone: True\nlayer_decay: 0.9\n", "regime: freeze_back"),
    ],
)
def test_wrong_values(
    more: str, culprit: str, tmp_path: Path, ssl_folder: Callable[[str], Path]
) -> None:
    """Each error begins with the key."""
    given = f"data_folder: none\noutput_folder: {tmp_path}\n{more}"
    if "source" not in more:
        given += f"source: {ssl_folder('tiny_ssl')}\n"
    with pytest.raises(InputError, match=f"^{culprit}"):
        load_options(str(HPARAMS / "tiny_ssl.yaml"), given)
