"""What SpeechBrain's own flags cannot do here is said before any work.

Trap avoided: ``--device=cuda`` without a GPU, ``--precision=fp16`` on a CPU
and their like end in a traceback, after all data was prepared.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from speechbrain import parse_arguments

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.options import check_run_options

FLAGS = [
    (("--device=cuda:99",), "--device: cuda:99 cannot be used", "give cpu"),
    (("--device=gpu",), "--device: gpu cannot be used", "give cpu"),
    (("--device=",), "--device: ", "give cpu"),
    (("--precision=fp16",), "precision: fp16 cannot", "use bf16 or fp32"),
    (("--eval_precision=fp16",), "eval_precision: fp16", "use bf16 or fp32"),
    (("--auto_mix_prec",), "auto_mix_prec: fp16", "use bf16 or fp32"),
    (("--jit",), "--jit: TorchScript cannot", "use --compile"),
    (("--compile", "--compile_mode=fast"), "--compile_mode: 'fast'", "default"),
    (
        ("hparams", "--compile", "--compile_module_keys", "net"),
        "--compile_module_keys: there is no module 'net'",
        "modules holds model",
    ),
    (("--data_parallel_backend",), "--data_parallel_backend: ", "torchrun"),
    (("--distributed_backend=tcp",), "--distributed_backend: 'tcp'", "gloo"),
    (("--ckpt_interval_steps=25",), "ckpt_interval_steps: 25", "minutes=0"),
    (
        ("--grad_accumulation_factor=0",),
        "grad_accumulation_factor: 0",
        "from 1",
    ),
    (("--max_grad_norm=-1",), "max_grad_norm: -1", "1.0e+9"),
    (
        ("--optimizer_step_limit=many",),
        "optimizer_step_limit: 'many'",
        "from 1",
    ),
]


def check(*flags: str, **hparams: object) -> object:
    """What train.py does with flags beside a YAML that holds some keys."""
    given = {"modules": {"model": None}, "ckpt_interval_minutes": 5, **hparams}
    device = [] if "--device" in " ".join(flags) else ["--device=cpu"]
    flags = [each for each in flags if each.startswith("--") or each == "net"]
    _, run_opts, overrides = parse_arguments(["demo.yaml", *device, *flags])
    assert overrides == ""
    return check_run_options(run_opts, given)


@pytest.mark.parametrize("flags, culprit, way_out", FLAGS)
def test_one_sentence_says_what_to_do(flags, culprit, way_out):
    with pytest.raises(InputError) as error:
        check(*flags)
    said = str(error.value)
    assert said.startswith(culprit) and way_out in said
    assert "\n" not in said and len(said) < 400


@pytest.mark.parametrize(
    "key, value, culprit",
    [
        ("precision", "fp8", "precision: 'fp8' is none of fp32"),
        ("precision", "fp16", "precision: fp16 cannot"),
        ("device", "gpu", "--device: gpu"),
        ("max_grad_norm", 0, "max_grad_norm: 0"),
        ("optimizer_step_limit", 0, "optimizer_step_limit: 0"),
    ],
)
def test_the_same_in_a_yaml_is_refused(key, value, culprit):
    _, run_opts, _ = parse_arguments(["demo.yaml"])
    given = {"modules": {}, "device": "cpu", key: value}
    with pytest.raises(InputError, match=culprit):
        check_run_options(run_opts, given)
    assert check("--precision=bf16", precision="fp16").precision == "bf16"


def test_processes_without_gpus_are_told_of_gloo(monkeypatch):
    gpus = torch.cuda.device_count()
    monkeypatch.setenv("RANK", str(gpus))
    monkeypatch.setenv("LOCAL_RANK", str(gpus))
    with pytest.raises(InputError, match="--distributed_backend=gloo"):
        check()
    check("--distributed_backend=gloo")


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match="--compile: .*C.. compiler"):
        check("--compile")
    check()


def test_a_limit_of_steps_is_a_number() -> None:
    assert check("--optimizer_step_limit=7").optimizer_step_limit == 7
    assert check().optimizer_step_limit is None


@pytest.fixture
def train(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    recipe = repository / "recipes/LibriSpeech/EarlyExit"
    monkeypatch.chdir(recipe)
    monkeypatch.syspath_prepend(str(recipe))
    return importlib.import_module("train")


@pytest.mark.parametrize(
    "flag, culprit",
    [
        ("--device=cuda:99", "--device: cuda:99 cannot be used"),
        ("--precision=fp8", "--precision: invalid choice: 'fp8'"),
        ("--debug_batches=two", "--debug_batches: invalid int value"),
    ],
)
def test_nothing_is_prepared(
    train: ModuleType,
    flag: str,
    culprit: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "train.py",
            "hparams/demo.yaml",
            f"--data_folder={tmp_path}",
            f"--output_folder={tmp_path / 'out'}",
            flag,
        ],
    )
    with pytest.raises(SystemExit) as end:
        train.main()
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: {culprit}") and "\n" not in said
    assert not list((tmp_path / "out").glob("*.*"))
