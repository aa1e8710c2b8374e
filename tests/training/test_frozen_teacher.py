"""The teacher is the model that the finished run has evaluated.

Protects: its weights, its tokens, and the command line that asks for it; that
loading it makes no file, draws no random number and executes nothing but the
model; and that a folder of something else is refused by its name.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hyperpyyaml import resolve_references
from sentencepiece import SentencePieceTrainer
from torch import nn

from speechbrain_ee.errors import InputError
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.frozen_teacher import FrozenTeacher, load_teacher
from speechbrain_ee.training.options import load_options
from tests.helpers import noise, padded, shaken

WORDS = "zero one two three four five six seven eight nine"
TINY = "data_folder: none\nd_model: 16\nnhead: 2\nd_ffn: 32\nkernel_size: 5\n"
SMALL = TINY + "exit_layers: [2, 4]\noutput_neurons: 21\ntoken_type: char\n"


def finished_run(yaml: Path, folder: Path) -> EarlyExitModel:
    overrides = (
        f"{SMALL}output_folder: {folder}\n"
        "average_checkpoints: 2\nkeep_checkpoints: 9\n"
    )
    options = load_options(str(yaml), overrides)
    model, checkpointer = options["model"], options["checkpointer"]
    kept = []
    for seed, wer in enumerate([30.0, 10.0, 40.0, 20.0]):
        shaken(model, seed=seed, by=0.05)
        meta = {"WER": wer, "epoch": seed}
        checkpointer.save_checkpoint(meta=meta, name=f"epoch{seed}")
        kept.append([p.detach().clone() for p in model.parameters()])
    # Within an epoch: nothing was measured.
    shaken(model, by=9.0)
    checkpointer.save_checkpoint(name="intra")
    with torch.no_grad():
        for parameter, one, other in zip(
            model.parameters(), kept[1], kept[3], strict=True
        ):
            parameter.copy_((one + other) / 2)
    # A teacher that has learned from a teacher itself, gone by now.
    text = resolve_references(
        yaml.read_text("utf-8"), overrides + "teacher_folder: /no/such\n"
    ).getvalue()
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    make_tokenizer(folder / "save")
    return model.eval()


def make_tokenizer(folder: Path, words: str = WORDS) -> None:
    folder.mkdir(exist_ok=True)
    text = folder / "words.txt"
    text.write_text(f"{words}\n{words[::-1]}\n" * 9, encoding="utf-8")
    SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "21_char"),
        vocab_size=21,
        model_type="char",
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )


@pytest.fixture(scope="module")
def yaml(repository: Path) -> Path:
    return repository / "hparams/digits.yaml"


@pytest.fixture(scope="module")
def model(yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    folder = tmp_path_factory.mktemp("runs") / "moved"
    model = finished_run(yaml, folder.with_name("first"))
    folder.with_name("first").rename(folder)
    model.folder = folder
    return model


def test_says_what_the_tested_model_says(model: nn.Module) -> None:
    """The average of the two best, the last exit, of a folder that moved."""
    teacher = load_teacher(model.folder)
    batch = padded([noise(9000), noise(7000, seed=1)])
    (found,) = teacher(*batch)
    expected = model(*batch)[-1]
    torch.testing.assert_close(found.log_probs_BTV, expected.log_probs_BTV)
    assert torch.equal(found.lengths_B, expected.lengths_B)
    assert found.layer == expected.layer == 4
    assert found.blank_index == expected.blank_index
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert teacher.pieces[0] == "<unk>" and "z" in teacher.pieces


def test_loading_leaves_no_trace(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, no random number; the rest of the YAML is not executed."""
    folder = tmp_path / "run"
    shutil.copytree(model.folder, folder)
    path = folder / "hyperparams.yaml"
    text = path.read_text("utf-8")
    assert "!apply:speechbrain_ee.training.frozen_teacher.load_teacher" in text
    done = tmp_path / "done"
    path.write_text(text + f"x: !apply:os.mkdir [{done}]\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    files = set(tmp_path.rglob("*"))
    state = torch.get_rng_state()
    load_teacher(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("kind", ["hard", "none"])
def test_on_the_command_line(
    kind: str, yaml: Path, model: nn.Module, tmp_path: Path
) -> None:
    """By two options; the student starts as it would without a teacher."""
    plain = f"{SMALL}output_folder: {tmp_path}\n"
    asked = plain
    if kind == "hard":
        asked += (
            "distillation: {kind: hard, alpha: 0.4}\n"
            f"teacher_folder: {model.folder}\n"
        )
    options = load_options(str(yaml), asked)
    distillation = options["distillation"]
    assert distillation.kind == kind
    if kind == "hard":
        assert distillation.exit_alphas(2) == (0.4, 1.0)
        assert isinstance(options["teacher"], FrozenTeacher)
    else:
        assert options["teacher"] is None
    alike = load_options(str(yaml), plain)["model"].parameters()
    for one, other in zip(options["model"].parameters(), alike, strict=True):
        assert torch.equal(one, other)


def broken(change: Callable[[Path], object], folder: Path, source: Path) -> str:
    copy = folder / "run"
    shutil.copytree(source, copy)
    change(copy)
    with pytest.raises(InputError, match="^teacher_folder: ") as error:
        load_teacher(copy)
    assert str(copy) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def edit(old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "hyperparams.yaml"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")

    return change


def remove(pattern: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        for path in list(folder.glob(pattern)):
            path.unlink()

    return change


def damage(folder: Path) -> None:
    for path in folder.glob("save/*/model.ckpt"):
        content = path.read_bytes()
        path.write_bytes(content[:500].ljust(len(content), b"0"))


def other_yaml(folder: Path) -> None:
    (folder / "hyperparams.yaml").write_text("a: [1]\n", "utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("hyperparams.yaml"), "No such file.*finished run"),
        (other_yaml, "not the YAML of a run"),
        (
            edit("sample_rate: 16000", "rate: 16000"),
            "not the YAML of a run .*sample_rate",
        ),
        (
            edit("d_model: 16", "d_model: 18"),
            "do not fit this model: .*d_model",
        ),
        (edit("encoder.MultiExitEncoder", "encoder.Multi"), "cannot be built"),
        (edit("model.EarlyExitModel", "heads.ExitOutput"), "cannot be built"),
        (remove("save/*/CKPT.yaml"), "no checkpoint of a whole epoch"),
        (damage, "cannot be loaded "),
        (remove("save/*.model"), "cannot teach .*21_char.model"),
    ],
)
def test_a_folder_of_something_else(
    change: Callable, message: str, model: nn.Module, tmp_path: Path
) -> None:
    """Each names the file and what to pass instead."""
    assert re.search(message, broken(change, tmp_path, model.folder))
