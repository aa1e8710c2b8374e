"""A pre-trained model is loaded whole or refused with the way out.

Protects: clear errors for folders, files, architectures, installs and hubs
that do not serve; weights as old checkpoints on the hub have them, or random
ones on request; quiet that ends with the loading.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.models import ssl_loading
from speechbrain_ee.models.ssl_loading import load_backbone
from tests.models.ssl_models import (
    MODELS,
    original,
    transformers,
    write_ssl_model,
)

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete model folder, to be spoilt."""
    return write_ssl_model(tmp_path / "wav2vec2")


def refusal(source: Path | str) -> str:
    """The message, one paragraph that begins with the key and the source."""
    with pytest.raises(InputError) as caught:
        load_backbone(str(source))
    message = str(caught.value)
    assert message.startswith("source: ") and str(source) in message
    assert "\n" not in message and "; " in message
    return message


def configure(folder: Path, **changes: Any) -> None:
    """Change keys of a config.json."""
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", WEIGHTS]
)
def test_missing_file(folder: Path, name: str) -> None:
    """The message names the file that a folder lacks."""
    (folder / name).unlink()
    assert name in refusal(folder)
    assert "save_pretrained()" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_unreadable_json(folder: Path, name: str, content: str) -> None:
    """Cut off, not an object, not UTF-8."""
    (folder / name).write_text(content, errors="surrogateescape")
    assert str(folder / name) in refusal(folder)
    assert "fetch the model again" in refusal(folder)


@pytest.mark.parametrize("size", [0, 5, 5000])
def test_truncated_weights(folder: Path, size: int) -> None:
    """A download that broke off."""
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    assert "fetch it again" in refusal(folder)


def test_weights_that_hold_code_are_not_run(folder: Path) -> None:
    """A pickle of something else is refused, with no advice to trust it."""
    (folder / WEIGHTS).unlink()
    torch.save({"code": Path}, folder / "pytorch_model.bin")
    assert "weights_only" not in refusal(folder)


def test_missing_tensors(folder: Path) -> None:
    """A config of more layers: the others would be random."""
    configure(folder, num_hidden_layers=5)
    message = refusal(folder)
    assert "incomplete: 16 of" in message and "encoder.layers.4." in message


def test_tensors_of_another_shape(folder: Path) -> None:
    """A config of a wider feed-forward: three tensors in 4 layers."""
    configure(folder, intermediate_size=30)
    message = refusal(folder)
    assert "incomplete: 12 of" in message and "intermediate_dense" in message


@pytest.mark.parametrize("changes", [{"hidden_size": "x"}, {"hidden_size": 15}])
def test_impossible_config(folder: Path, changes: dict[str, Any]) -> None:
    """Values that no model can be built from."""
    configure(folder, **changes)
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize("kind", ["bert", "whisper", "no-such-type", None])
def test_other_architectures(folder: Path, kind: str | None) -> None:
    """Known to transformers or not: the message lists what is known here."""
    configure(folder, model_type=kind)
    message = refusal(folder)
    assert f"of type {kind!r}" in message
    assert "wav2vec2, hubert, wavlm" in message


def test_adapters_are_refused(folder: Path) -> None:
    """They follow the last layer and halve the frames."""
    configure(folder, add_adapter=True)
    assert "add_adapter" in refusal(folder)


def test_extractor_of_spectra(folder: Path) -> None:
    """This encoder is given waveforms."""
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    assert "WhisperFeatureExtractor" in refusal(folder)


def test_without_transformers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra to install is named."""

    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(ssl_loading.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"speechbrain-ee\[ssl\]"):
        load_backbone(str(folder))


@pytest.mark.parametrize("source", ["./missing", "/no/folder", "~/no", "a/b/c"])
def test_missing_folder(source: str) -> None:
    """What can only be a folder is not looked for on the hub."""
    assert "is no folder" in refusal(source)


@pytest.mark.parametrize(
    "source", ["nobody/no-such-model", "no-such-model", "not a name"]
)
def test_hub_out_of_reach(source: str, tmp_path: Path) -> None:
    """Offline it is known at once; the way out is a folder."""
    began_s = time.monotonic()
    message = refusal(source)
    assert time.monotonic() - began_s < 5
    assert "hub" in message and "give its folder" in message
    with pytest.raises(InputError, match="hub"):
        load_backbone(source, save_path=str(tmp_path))


@pytest.mark.parametrize("model", MODELS, ids="-".join)
def test_checkpoints_as_the_hub_has_them(
    tmp_path: Path, model: tuple[str, str]
) -> None:
    """Prefixed names, old weight norm, heads beside: equal weights, no error.

    Public checkpoints come from pre-training or from fine-tuning with CTC,
    most of them saved before PyTorch's parametrisations.
    """
    folder = write_ssl_model(tmp_path, *model)
    weights = original(folder).state_dict()
    weights.pop("masked_spec_embed", None)
    norm = "parametrizations.weight.original"
    renamed = {
        f"{model[0]}.{name}".replace(f"{norm}0", "weight_g").replace(
            f"{norm}1", "weight_v"
        ): value.clone()
        for name, value in weights.items()
    }
    renamed["lm_head.weight"] = torch.rand(3, 16)
    (folder / WEIGHTS).unlink()
    torch.save(renamed, folder / "pytorch_model.bin")
    loaded = load_backbone(str(folder)).model.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_half_precision_files_are_trained_in_single(folder: Path) -> None:
    """Whatever the files hold."""
    original(folder).half().save_pretrained(folder)
    model = load_backbone(str(folder)).model
    assert {each.dtype for each in model.parameters()} == {torch.float32}


def untrained(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """The weights of the same architecture, random."""
    torch.manual_seed(seed)
    return load_backbone(str(folder), pretrained=False).model.state_dict()


def test_random_weights_by_seed(folder: Path) -> None:
    """Names and shapes of the file's, values of the seed; no file is read."""
    trained = load_backbone(str(folder)).model.state_dict()
    (folder / WEIGHTS).unlink()
    one, same, other = (untrained(folder, seed) for seed in (1, 1, 2))
    shapes = {name: value.shape for name, value in trained.items()}
    assert {name: value.shape for name, value in one.items()} == shapes
    assert all(torch.equal(one[name], same[name]) for name in one)
    matrices = [name for name in one if name.endswith("proj.weight")]
    assert len(matrices) >= 16
    for name in matrices:
        assert not torch.equal(one[name], other[name]), name
        assert not torch.equal(one[name], trained[name]), name


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_random_weights_need_the_architecture(folder: Path, name: str) -> None:
    """What the model is, and what it hears, stands in files all the same."""
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"^source: .* has no {name}"):
        load_backbone(str(folder), pretrained=False)


@pytest.mark.parametrize("normalise", [True, False])
def test_what_the_audio_must_look_like(tmp_path: Path, normalise: bool) -> None:
    """Rate and normalisation are the file's."""
    write_ssl_model(tmp_path, normalise=normalise)
    backbone = load_backbone(str(tmp_path))
    assert backbone.normalise is normalise
    assert backbone.sample_rate == 16000


@pytest.mark.parametrize("spoil", [False, True])
def test_quiet_while_loading_alone(
    folder: Path, spoil: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """No bar, no report; then transformers is as talkative as before."""
    log = transformers.utils.logging
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    log.enable_progress_bar()
    log.set_verbosity_info()
    capfd.readouterr()
    try:
        if spoil:
            configure(folder, intermediate_size=30)
            refusal(folder)
        else:
            load_backbone(str(folder))
        assert capfd.readouterr().err == ""
        assert log.is_progress_bar_enabled()
        assert log.get_verbosity() == log.INFO
    finally:
        log.set_verbosity(before[0])
        if not before[1]:
            log.disable_progress_bar()
