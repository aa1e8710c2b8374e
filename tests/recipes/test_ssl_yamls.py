"""What the YAMLs of pre-trained systems build, on tiny random models.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.head_bodies import FeedForwardBody
from speechbrain_ee.training.options import load_options

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
BASE = ("wav2vec2_ctc", "hubert_ctc", "wavlm_ctc")
FROZEN = "hubert_large_frozen"


def load(system: str, folder: Path, source: Path, more: str = "") -> dict:
    """The objects of a YAML."""
    given = f"data_folder: none\noutput_folder: {folder}\nsource: {source}\n"
    return load_options(str(HPARAMS / f"{system}.yaml"), given + more)


def learning(module: Any) -> bool:
    """Whether any parameter is trained."""
    return any(each.requires_grad for each in module.parameters())


@pytest.mark.parametrize("system", BASE)
def test_paper_a(
    system: str, tmp_path: Path, ssl_folder: Callable[[str], Path]
) -> None:
    """Six linear heads over twelve layers, the CNN frozen, all else not."""
    model = load(system, tmp_path, ssl_folder(system))["model"].train()
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


def test_paper_b(tmp_path: Path, ssl_folder: Callable[[str], Path]) -> None:
    """Own bodies and one projection on layers 10 to 24, which stay frozen."""
    options = load(FROZEN, tmp_path, ssl_folder(FROZEN))
    model = options["model"].train()
    assert options["encoder"] is model.encoder
    assert model.encoder.exit_layers == tuple(range(10, 25))
    assert not learning(model.encoder) and learning(model.heads)
    assert not model.encoder.layers.training
    assert isinstance(model.heads.body(1), FeedForwardBody)
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


def test_the_tiny_system_fetches_nothing_by_itself(tmp_path: Path) -> None:
    """Without a folder it asks for one."""
    given = f"data_folder: none\noutput_folder: {tmp_path}\n"
    with pytest.raises(InputError, match=r"tiny_ssl\.yaml: .*'source'"):
        load_options(str(HPARAMS / "tiny_ssl.yaml"), given)


@pytest.mark.parametrize(
    "more, culprit",
    [
        ("sample_rate: 8000\n", "sample_rate: 8000 Hz"),
        ("downsampling: {method: drop}\n", "downsampling: method 'drop'"),
        ("exit_layers: [2, 14]\n", r"exit_layers: \[14\] lie beyond"),
        ("head: lineaar\n", "head: 'lineaar' is unknown"),
        ("tied_heads: some\n", "tied_heads: 'some' is unknown"),
        ("source: /no/such\n", "source: /no/such is no folder"),
        ("freeze_backbone: True\nlayerdrop_prob: 0.1\n", "layerdrop_prob: 0.1"),
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
