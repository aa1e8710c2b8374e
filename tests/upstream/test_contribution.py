"""The contribution: small, clean by SpeechBrain's gates, and it runs there.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.inference.folder.training_run import run_folder
from tests.models.ssl_models import write_ssl_model
from tests.recipes.conftest import SHRINK, write_split
from upstream import gates
from upstream.__main__ import main
from upstream.checkout import LINK, write
from upstream.gates import PADDING, RECIPE, TABLE, check_tree, table_problems

TIMEOUT_S = 600  # only against hanging: the machine may be busy
SYSTEMS = ("conformer_ctc", "wav2vec2_ctc")
# Rows of the table as SpeechBrain's recipe tests run them, in one process.
RUN_ROWS = """
import json, runpy, sys
sys.modules["speechbrain_ee"] = None  # nothing of this project is needed
for argv in json.loads(sys.argv[1]):
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")
"""


def lay_out_samples(root: Path, split: Path) -> None:
    """The part of SpeechBrain's tests/samples that the flags name.

    Its table has many more columns than the recipe reads.
    """
    audio = root / "tests/samples/ASR"
    annotation = root / "tests/samples/annotation/ASR_train.csv"
    audio.mkdir(parents=True)
    annotation.parent.mkdir()
    rows = []
    for transcript in split.rglob("*.trans.txt"):
        for line in transcript.read_text("utf-8").splitlines()[:8]:
            name, words = line.split(" ", 1)
            (source,) = transcript.parent.glob(f"{name}.*")
            shutil.copy(source, audio / source.name)
            path = f"tests/samples/ASR/{source.name}"
            length_s = round(soundfile.info(source).duration, 2)
            part = [name, length_s, "0", "800"]  # ignored there, too
            rows.append([*part, path, path, "spk1", "-", words])
    header = ["ID", "duration", "start", "stop", "wav", "mix_wav", "spk_id"]
    header.append("phn")
    with annotation.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([[*header, "wrd"], *rows])


def run_there(
    checkout: Path, *arguments: object, path: str = "."
) -> subprocess.CompletedProcess[str]:
    """Run Python in a checkout, with its packages."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=checkout,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": f"{checkout / path}{os.pathsep}{checkout}",
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def test_speechbrains_gates_pass(tmp_path, monkeypatch, caplog):
    """By the command: linters, docstrings, table, keys, size, Python 3.8."""
    out = str(tmp_path / "new")
    monkeypatch.setattr("sys.argv", ["upstream", out, "--check"])
    with caplog.at_level("INFO", logger="upstream"):
        main()
    assert "8 files" in caplog.text
    assert " 0 problems found" in caplog.text
    link = tmp_path / "new" / LINK
    shared = tmp_path / "new/recipes/LibriSpeech/librispeech_prepare.py"
    assert os.path.normpath(link.parent / link.readlink()) == str(shared)


def test_rows_are_appended_once(tmp_path):
    """A checkout's own rows stay; a second time adds nothing."""
    table = tmp_path / TABLE
    table.parent.mkdir(parents=True)
    header = ",".join(gates.COLUMNS)
    table.write_text(f"{header}\nASR,LibriSpeech{',x' * 9}\n", "utf-8")
    assert write(tmp_path) == write(tmp_path)
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["Task"] for row in rows] == ["ASR"] + 2 * ["ASR-EarlyExit"]
    assert list(table_problems(tmp_path)) == []


def test_gates_find_what_is_wrong(tmp_path, monkeypatch):
    """A key that nobody reads, a missing row, newer Python, too much."""
    names = write(tmp_path)
    hparams = tmp_path / RECIPE / "hparams"
    with (hparams / "conformer_ctc.yaml").open("a") as stream:
        stream.write("nobody_reads_this: 1\n")
    (hparams / "new.yaml").write_text("a: 1\n", "utf-8")
    with (tmp_path / RECIPE / "train.py").open("a") as stream:
        stream.write("\n\ndef f(): \n    import speechbrain_ee\n")
    monkeypatch.setattr(gates, "MOST_LINES", 100)
    found = "\n".join(check_tree(tmp_path, names))
    for words in (
        "key nobody_reads_this",
        "not one row for each YAML",
        "names speechbrain_ee",
        "f has no docstring",
        "spaces, or no newline",
        "ruff check: ",
        "ruff format: ",
        "lines in 4 files of Python",
    ):
        assert words in found, words
    with (tmp_path / RECIPE / "train.py").open("a") as stream:
        stream.write("match f:\n    case 1:\n        pass\n")
    with pytest.raises(SyntaxError):
        check_tree(tmp_path, names)


def test_its_tests_and_doctests_pass_there(checkout):
    """With the padding fix applied before, as it is to be merged."""
    name = "speechbrain/lobes/models/transformer/Conformer.py"
    source = (checkout / name).resolve()
    (checkout / name).unlink()
    shutil.copy(source, checkout / name)
    git = shutil.which("git") or pytest.skip("git applies the patch")
    patch = PADDING / "conformer-padding.patch"
    subprocess.run([git, "apply", str(patch)], cwd=checkout, check=True)
    shutil.copy(gates.PADDING_TEST, checkout / "tests/unittests")
    done = run_there(
        checkout,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("--doctest-modules", "speechbrain/lobes/models/early_exit.py"),
        "tests/unittests",
    )
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 30


@pytest.fixture(scope="module")
def ran(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The flags of the rows, run from the root; output folders by system."""
    work = tmp_path_factory.mktemp("rows")
    write_split(work / "train", 100, 8)
    lay_out_samples(checkout, work / "train")
    hub = write_ssl_model(work / "hub", "wav2vec2", num_hidden_layers=12)
    with (checkout / TABLE).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, skipinitialspace=True))
    commands = []
    for row in rows:
        system = Path(row["Hparam_file"]).stem
        text = (checkout / row["Hparam_file"]).read_text("utf-8")
        keys = {*re.findall(r"(?m)^(\w+):", text), "device", "noprogressbar"}
        flags = row["test_debug_flags"].split()
        given = {flag.partition("=")[0] for flag in flags}
        small = [
            flag
            for flag in (*SHRINK, f"--wav2vec2_hub={hub}", "--precision=fp32")
            if re.match(r"--(\w+)", flag)[1] in keys
            and flag.partition("=")[0] not in given
        ]
        command = [row["Script_file"], row["Hparam_file"], *flags, *small]
        commands.append([*command, f"--output_folder={work / system}"])
    run_there(checkout, "-c", RUN_ROWS, json.dumps(commands), path=RECIPE)
    for row in rows:
        check_row(row, work / Path(row["Hparam_file"]).stem)
    return {system: work / system for system in SYSTEMS}


def check_row(row: dict[str, str], output: Path) -> None:
    """What SpeechBrain's recipe tests check of a row."""
    checks = row["test_debug_checks"]
    for name in re.search(r"file_exists=\[(.*?)\]", checks)[1].split(","):
        assert (output / name).exists(), name
    check = re.search(r"performance_check=\[(.*?)\]", checks)[1].split(",")
    log = (output / "train_log.txt").read_text("utf-8").splitlines()
    line = next(line for line in log if check[3].strip() in line)
    loss = float(re.search(rf"{check[1].strip()}: ([\d.e+-]+)", line)[1])
    assert loss <= float(check[2].strip().removeprefix("<="))


@pytest.mark.parametrize("system", SYSTEMS)
def test_its_trace_and_model_open_here(ran, system):
    """What `report` and `export` read: the trace, the folder of the run."""
    output = ran[system]
    trace = read_trace(output / "traces/ASR_train.jsonl.gz")
    assert len(trace) == 8 and trace.clusters.count == 1
    assert set(trace.evidence_names) == {
        "entropy",
        "max_prob",
        "cross_entropy_1",
        "cross_entropy_2",
    }
    alignments = (output / "wer_ASR_train.txt").read_text("utf-8")
    wer = float(re.match(r"%WER (\S+)", alignments)[1])
    errors = trace.errors_NE.sum(0)
    assert wer == pytest.approx(
        100 * errors[-1] / trace.words_N.sum(), abs=0.01
    )
    with (output / "exits.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    fixed = [row for row in rows if row["criterion"] == "fixed"]
    assert [float(row["mean_layer"]) for row in fixed] == [2, 4, 6, 8, 10, 12]
    for row, count in zip(fixed, errors):
        rate = 100 * count / trace.words_N.sum()
        assert float(row["WER"]) == pytest.approx(rate, abs=0.006)
    folder = run_folder(output)
    assert folder.exit_layers == (2, 4, 6, 8, 10, 12)
    assert folder.tokenizer.get_piece_size() <= 29
