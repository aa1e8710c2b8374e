"""Every system trains, evaluates and reports, in seconds, on made-up audio.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SYSTEMS = sorted(path.stem for path in (ROOT / "hparams").glob("*.yaml"))
Run = Callable[..., subprocess.CompletedProcess[str]]
Shrunk = Callable[[str], tuple[str, ...]]

# What SpeechBrain's own recipe tests look for, and what a reader looks for.
FILES = (
    "env.log",
    "hyperparams.yaml",
    "log.txt",
    "train_log.txt",
    "train.py",
)
REPORT = (
    "report.json",
    "report.html",
    "exits.csv",
    "criteria.csv",
    "curves.png",
    "curves.pdf",
)


def yaml_value(text: str, key: str) -> str:
    return re.search(rf"(?m)^{key}: *([^#\n]*)", text).group(1).strip()


def read_trace(path: Path) -> tuple[dict, list[dict]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        header, *records = [json.loads(line) for line in stream]
    return header, records


def check_output(folder: Path, tests: dict[str, int], layers: list[int]):
    for name in FILES:
        assert (folder / name).stat().st_size > 0, name
    for name in REPORT:
        assert (folder / "report" / name).stat().st_size > 0, name
    assert (folder / "report/curves.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "report/curves.pdf").read_bytes()[:4] == b"%PDF"
    report = json.loads((folder / "report/report.json").read_text("utf-8"))
    assert set(report["sets"]) == set(tests)
    for name, utterances in tests.items():
        # One paragraph per utterance in SpeechBrain's file of alignments.
        alignments = (folder / f"wer_{name}.txt").read_text("utf-8")
        wer = float(re.match(r"%WER (\S+)", alignments).group(1))
        result = report["sets"][name]
        assert result["exit_layers"] == layers
        assert result["utterances"] == utterances
        assert result["wer"][-1] == pytest.approx(wer, abs=0.006)
        assert all("macs" in exit_ for exit_ in result["exits"])
        header, records = read_trace(folder / f"traces/{name}.jsonl.gz")
        assert header["exit_layers"] == layers
        assert len(header["macs"]) == len(layers)
        assert header["macs"] == sorted(header["macs"])
        assert len(records) == utterances


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_runs_in_debug_mode(
    system: str,
    corpus: Path,
    recipe_folder: Path,
    shrunk: Shrunk,
    run_python: Run,
    tmp_path: Path,
) -> None:
    """``python train.py YAML --debug --data_folder=...`` from its folder."""
    text = (recipe_folder / f"hparams/{system}.yaml").read_text("utf-8")
    done = run_python(
        "train.py",
        f"hparams/{system}.yaml",
        "--debug",
        f"--data_folder={corpus}",
        f"--output_folder={tmp_path}",
        *shrunk(system),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    # It ends with what went well, and with what it leaves out on purpose.
    said = done.stdout + done.stderr
    assert "The debug run went through" in said
    assert "No inference folder was written" not in said
    assert not (tmp_path / "model").exists()
    sets = json.loads(yaml_value(text, "test_splits"))
    layers = json.loads(yaml_value(text, "exit_layers"))
    check_output(tmp_path, dict.fromkeys(sets, 4), layers)
    kind = yaml_value(text, "token_type")
    assert (tmp_path / f"save/32_{kind}.model").is_file()
    # Two epochs of debug mode, and the tables on standard output.
    epochs = (tmp_path / "train_log.txt").read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in epochs] == ["epoch: 1", "epoch: 2"]
    for name in sets:
        assert name in done.stdout
    for layer in layers:
        assert f"valid WER L{layer}: " in epochs[-1]
        if re.search(r"(?m)^attention:", text):
            assert f"valid accuracy L{layer}: " in epochs[-1]


def test_single_exit_accumulation_averaging_and_tensorboard(
    corpus: Path,
    recipe_folder: Path,
    shrink: tuple[str, ...],
    run_python: Run,
    tmp_path: Path,
) -> None:
    """One full run of what the YAMLs leave to the user."""
    pytest.importorskip("tensorboard")
    text = (recipe_folder / "hparams/english5h.yaml").read_text("utf-8")
    text, replaced = re.subn(
        r"(?m)^train_logger:.*\n.*\n",
        "train_logger: !new:speechbrain.utils.train_logger.TensorboardLogger\n"
        "    save_dir: !ref <output_folder>/tensorboard\n",
        text,
    )
    assert replaced == 1
    text = text.replace("train_log: !ref <output_folder>/train_log.txt\n", "")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(text, encoding="utf-8")
    output = tmp_path / "out"
    # An option may be given only once.
    small = [flag for flag in shrink if "train_dataloader" not in flag]
    done = run_python(
        "train.py",
        yaml,
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        *small,
        "--number_of_epochs=3",
        "--exit_layers=[4]",
        "--tied_heads=True",
        "--grad_accumulation_factor=2",
        "--average_checkpoints=2",
        "--dynamic_batching=null",
        "--train_dataloader_opts={num_workers: 0, batch_size: 3}",
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert list((output / "tensorboard").glob("events.out.tfevents.*"))
    report = json.loads((output / "report/report.json").read_text("utf-8"))
    assert report["sets"]["test"]["exit_layers"] == [4]
    assert report["sets"]["test"]["utterances"] == 4
    steps = {
        int(re.search(r"optimizer_step: (\d+)", path.read_text("utf-8"))[1])
        for path in output.glob("save/CKPT*/brain.ckpt")
    }
    # 12 utterances, 3 a batch, 2 batches a step: 2 steps an epoch.
    assert steps == {2, 4, 6}
    assert len(read_trace(output / "traces/test.jsonl.gz")[1]) == 4
