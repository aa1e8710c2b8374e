"""Weights are used with the tokenizer and the settings of their training.

Trap avoided: a finished run that is started again with another tokenizer, or
with a setting that leaves all shapes alone, is evaluated and exported without
a word; its word error rate goes from 3 to 165 %.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.model_folder import read_model_folder
from speechbrain_ee.inference.folder.training_run import (
    export_run,
    export_training,
)
from speechbrain_ee.training.checkpoints import (
    AtomicCheckpointer,
    yaml_fingerprint,
)
from speechbrain_ee.training.frozen_teacher import load_teacher
from speechbrain_ee.training.options import load_options
from tests.helpers import ToneTokenizer, tiny_brain
from tests.inference.runs import TEXTS, Run, write_run, write_tokenizer

TINY = {
    "data_folder": "none",
    "d_model": 16,
    "d_ffn": 32,
    "kernel_size": 5,
    "exit_layers": [2, 4],
    "output_neurons": 21,
}
NO_ENDS = {"bos_id": -1, "eos_id": -1}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run; only to be read."""
    return write_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture
def run(digits: Run, tmp_path: Path) -> Path:
    """The output folder of a finished run, of the test's own."""
    return Path(shutil.copytree(digits.folder, tmp_path / "run"))


@pytest.fixture(scope="module")
def load(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict]:
    """Load the demo's YAML, with some overrides; there is a checkpoint."""
    folder = tmp_path_factory.mktemp("load") / "out"

    def options(more: str = "") -> dict:
        given = {**TINY, "output_folder": str(folder)}
        given |= yaml.safe_load(more) or {}
        path = repository / "hparams/demo.yaml"
        return load_options(str(path), yaml.safe_dump(given))

    meta = {"WER": 1.0, "epoch": 1}
    options()["checkpointer"].save_checkpoint(meta=meta)
    return options


def edit(path: Path, old: str, new: str) -> None:
    """Replace a word of a file that is there."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def without_fingerprint(run: Path) -> None:
    """The checkpoints as earlier versions wrote them."""
    for path in run.glob("save/CKPT*/CKPT.yaml"):
        meta = yaml.safe_load(path.read_text("utf-8"))
        del meta["fingerprint"]
        path.write_text(yaml.safe_dump(meta), "utf-8")


def other_tokenizer(path: Path) -> None:
    """As many tokens that mean something else."""
    same, other = ([*TEXTS], [text.lower() for text in TEXTS])
    assert write_tokenizer(path.with_suffix(".same"), texts=same, **NO_ENDS)
    assert path.with_suffix(".same").read_bytes() == path.read_bytes()
    write_tokenizer(path, texts=other, **NO_ENDS)


@pytest.mark.parametrize(
    "more, key",
    [
        ("token_type: unigram", "token_type"),
        ("nhead: 2", "model.encoder.stack.nhead"),
        ("n_fft: 512", "model.encoder.features.compute_features.n_fft"),
        ("normalize: {epsilon: 0.1}", "features.normalize.epsilon"),
        ("normalize: {norm_type: batch}", "features.normalize.norm_type"),
        ("stack: {causal: True}", "model.encoder.stack.causal"),
        ("exit_layers: [1, 4]", "model.heads.exit_layers"),
        ("output_neurons: 22", "output_neurons is 22, but was 21"),
        ("sample_rate: 8000", "sample_rate"),
    ],
)
def test_a_start_with_another_meaning_is_refused(
    load: Callable[..., dict], more: str, key: str
) -> None:
    """By key, before anything is written."""
    with pytest.raises(InputError, match="do not fit this model") as error:
        load(more)
    assert key in str(error.value) and "new output_folder" in str(error.value)


def test_what_leaves_the_meaning_alone_may_change(
    load: Callable[..., dict], caplog: pytest.LogCaptureFixture
) -> None:
    """Also what is written in another way, or is only for training."""
    again = load(
        "lr: 0.1\ndropout: 0.2\nlayerdrop_prob: 0.1\nnumber_of_epochs: 3\n"
        "time_drop: {drop_count_high: 9}\nfront_end: {dropout: 0.1}\n"
    )
    assert len(again["checkpointer"].list_checkpoints()) == 1
    assert "fingerprint" not in caplog.text


def test_equal_values_have_equal_fingerprints() -> None:
    """Written otherwise, or of a class that has moved."""
    one = (
        "modules:\n    model: !new:a.b.Net\n        n: 4\n"
        "        t: (1, 2)\n        f: !name:x.Y\n"
    )
    two = (
        "net: &net !new:c.Net\n    n: 4.0\n    t: !tuple (1, 2)\n"
        "    f: !name:z.Y\n    dropout: 0.3\nmodules:\n    model: *net\n"
    )
    assert yaml_fingerprint(one) == yaml_fingerprint(two)
    assert yaml_fingerprint(one.replace("4", "5")) != yaml_fingerprint(two)
    assert yaml_fingerprint(one.replace("Net", "Ten")) != yaml_fingerprint(two)


def test_another_tokenizer_is_refused_by_resuming_and_testing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same kind and size."""
    tiny_brain(tmp_path).checkpointer.save_checkpoint(meta={"WER": 1.0})
    tiny_brain(tmp_path, epochs=2)
    others = lambda tokens: [f"note{token}" for token in tokens]
    monkeypatch.setattr(ToneTokenizer.sp, "id_to_piece", others)
    with pytest.raises(InputError, match="do not fit.*tokenizer is"):
        tiny_brain(tmp_path, epochs=2)
    # also where somebody put the checkpoint there later
    monkeypatch.undo()
    saver = AtomicCheckpointer(tmp_path / "empty")
    saver.expect({"tokenizer": '"other"'})
    saver.checkpoints_dir = tmp_path / "save"
    for ask in (saver.recover_if_possible, saver.find_checkpoints):
        with pytest.raises(InputError, match="tokenizer is"):
            ask(min_key="WER")


def test_checkpoints_of_an_earlier_version_load_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They carry no fingerprint."""
    saver = AtomicCheckpointer(tmp_path)
    for wer in (1.0, 2.0):
        saver.save_checkpoint(meta={"WER": wer})
    saver.expect({"tokenizer": "x", "model.class": "Net"})
    assert saver.recover_if_possible(min_key="WER").meta["WER"] == 1.0
    assert caplog.text.count("without a fingerprint") == 1


def test_of_an_earlier_version_the_yaml_that_it_left_is_asked(
    load: Callable[..., dict], tmp_path: Path
) -> None:
    """What it did not say (an option that is new) may be anything."""
    saver = load()["checkpointer"]
    saver.checkpoints_dir = tmp_path / "out/save"
    saver.checkpoints_dir.mkdir(parents=True)
    saved = saver.save_checkpoint(meta={"WER": 1.0})
    without_fingerprint(tmp_path / "out")
    folder = f"output_folder: {tmp_path / 'out'}\n"
    left = tmp_path / "out/hyperparams.yaml"
    left.write_text("token_type: bpe\noutput_neurons: 21\n", "utf-8")
    found = load(f"{folder}nhead: 2")["checkpointer"].find_checkpoint()
    assert found.path == saved.path
    with pytest.raises(InputError, match="token_type is.*remove it"):
        load(f"{folder}token_type: unigram")
    left.unlink()
    load(f"{folder}token_type: unigram")


@pytest.mark.parametrize(
    "old, new, key",
    [
        ("nhead: 2", "nhead: 4", "model.encoder.stack.nhead is 4, but was 2"),
        ("norm_type: sentence", "norm_type: batch", "norm_type"),
        ("token_type: char", "token_type: bpe", "token_type"),
    ],
)
def test_a_run_whose_yaml_has_changed_is_not_exported(
    run: Path, tmp_path: Path, old: str, new: str, key: str
) -> None:
    """Nor taken for a teacher; the folder there stays."""
    edit(run / "hyperparams.yaml", old, new)
    if key == "token_type":
        shutil.copy(*[run / f"save/{n}" for n in names_of_tokenizers(run)])
    with pytest.raises(InputError, match="do not fit this model") as error:
        export_run(run, tmp_path / "model")
    assert key in str(error.value)
    assert not (tmp_path / "model").exists()
    with pytest.raises(InputError, match="teacher_folder: .*do not fit"):
        load_teacher(run)


def names_of_tokenizers(run: Path) -> tuple[str, str]:
    """That of the run, and the name that it has for another token_type."""
    (name,) = (path.name for path in run.glob("save/*_char.model"))
    return name, name.replace("char", "bpe")


def test_a_run_with_another_tokenizer_is_not_exported(run: Path) -> None:
    """The former model folder is left as it is."""
    export_training({"output_folder": str(run)})
    before = (run / "model/tokenizer.model").read_bytes()
    other_tokenizer(run / "save" / names_of_tokenizers(run)[0])
    assert export_training({"output_folder": str(run)}) is None
    assert (run / "model/tokenizer.model").read_bytes() == before
    assert read_model_folder(run / "model").verified


def test_without_a_fingerprint_no_other_model_is_replaced(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two that differ, nothing says which one the weights belong to."""
    without_fingerprint(run)
    export_run(run, run / "model")
    assert caplog.text.count("without a fingerprint") == 1
    before = (run / "model/tokenizer.model").read_bytes()
    export_run(run, run / "model")
    export_run(run, run / "model", exits=2)
    export_run(run, run / "model")
    other_tokenizer(run / "save" / names_of_tokenizers(run)[0])
    with pytest.raises(InputError, match="differs in tokenizer.*remove it"):
        export_run(run, run / "model")
    assert (run / "model/tokenizer.model").read_bytes() == before


def test_a_folder_that_was_put_together_is_refused(
    run: Path, tmp_path: Path
) -> None:
    """Of other settings, another tokenizer, or weights of another training."""
    folder = export_run(run, tmp_path / "model")
    read_model_folder(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["model"]["encoder"]["stack"]["nhead"] = 4
    changed = Path(shutil.copytree(folder, tmp_path / "nhead"))
    (changed / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match="stack.nhead is 4, but was 2"):
        read_model_folder(changed)
    changed = Path(shutil.copytree(folder, tmp_path / "tokenizer"))
    other_tokenizer(changed / "tokenizer.model")
    with pytest.raises(InputError, match="safetensors: .*tokenizer is"):
        read_model_folder(changed)


def test_a_folder_of_an_earlier_version_loads_with_one_line(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its weights carry no fingerprint."""
    folder = export_run(run, tmp_path / "model")
    weights = folder / "model.safetensors"
    with safe_open(weights, framework="pt") as file:
        assert any("nhead" in key for key in file.metadata())
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    caplog.clear()
    assert not read_model_folder(folder).verified
    assert caplog.text.count("without a fingerprint") == 1
