"""What a user can get wrong ends in one paragraph and exit status 2.

One process runs train.py on every mistake in turn, since importing it takes
longer than to refuse; two runs of their own show that a shell sees the same.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_ee.data.corpora import prepare_librispeech
from speechbrain_ee.training.options import load_options
from tests.recipes.mistakes import CORPUS, DEFAULTS, MISTAKES, Mistake

Run = Callable[..., subprocess.CompletedProcess[str]]
RATE = 16000

DRIVER = '''
"""Run train.py with each of many command lines; keep status and stderr."""
import contextlib, io, json, sys, traceback, warnings
import train

warnings.simplefilter("ignore")
answers = {}
for name, argv in json.load(open(sys.argv[1], encoding="utf-8")):
    sys.argv = ["train.py", *argv]
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        try:
            train.main()
            status = 0
        except SystemExit as error:
            status = error.code
        except BaseException:
            status = 1
            traceback.print_exc()
    answers[name] = [status, stderr.getvalue()]
json.dump(answers, open("answers.json", "w", encoding="utf-8"))
'''


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def lay_out(root: Path, corpus: Path, recipe_folder: Path) -> None:
    (root / "corpus").symlink_to(corpus)
    for split in corpus.iterdir():
        flat = root / "flat" / split.name
        flat.mkdir(parents=True)
        for path in split.rglob("*.wav"):
            shutil.copy(path, flat)
    shutil.copytree(corpus, root / "silent")
    for path in (root / "silent/train-clean").rglob("*-1-*"):
        path.write_bytes(b"")
    prepare_librispeech(corpus, root / "made", "train-clean")
    with (root / "made/train-clean.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    write_rows(root / "fine.csv", rows)
    bad = root / "bad"
    bad.mkdir()
    wave = np.zeros(RATE)
    wave[7] = np.nan
    soundfile.write(bad / "nan.wav", wave, RATE, "FLOAT")
    for name in ("gone", "nan"):
        broken = [dict(rows[0], wav=str(bad / f"{name}.wav")), *rows[1:]]
        write_rows(root / f"{name}.csv", broken)
    keys = [key for key in rows[0] if key != "wrd"]
    short = [{key: row[key] for key in keys} for row in rows]
    write_rows(root / "column.csv", short)
    text = (recipe_folder / "hparams/demo.yaml").read_text("utf-8")
    for name, other in {
        "unknown": text + "\nexit_layer: [2]\n",
        "broken": text.replace("[1, 2, 3, 4, 5, 6]", "[1, 2, 3"),
    }.items():
        assert other != text
        (root / f"{name}.yaml").write_text(other, encoding="utf-8")


def command(
    mistake: Mistake, root: Path, number: int, shrink: tuple[str, ...]
) -> list[str]:
    folder = "trained" if mistake.trained else f"out{number}"
    defaults = {"--output_folder": f"ROOT/{folder}", **DEFAULTS}
    defaults |= dict(flag.split("=", 1) for flag in shrink if "=" in flag)
    for option in mistake.options:
        defaults.pop(option.split("=", 1)[0], None)
    options = [f"{key}={value}" for key, value in defaults.items()]
    line = [mistake.yaml, "--noprogressbar", *mistake.options, *options]
    return [word.replace("ROOT", str(root)) for word in line]


@pytest.fixture(scope="module")
def root(
    corpus: Path, recipe_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    lay_out(folder, corpus, recipe_folder)
    return folder


@pytest.fixture(scope="module")
def answers(
    root: Path, shrink: tuple[str, ...], run_python: Run
) -> dict[str, tuple[int, str]]:
    cases = {"none": Mistake("", "", (CORPUS,), trained=True), **MISTAKES}
    lines = [
        (name, command(mistake, root, number, shrink))
        for number, (name, mistake) in enumerate(cases.items())
    ]
    # From another folder: the answers name hparams/ as they were given.
    (root / "hparams").symlink_to(
        Path(__file__).resolve().parent.parent.parent / "hparams"
    )
    (root / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    (root / "driver.py").write_text(DRIVER, encoding="utf-8")
    done = run_python(root / "driver.py", root / "lines.json", cwd=root)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((root / "answers.json").read_text("utf-8"))


def test_without_a_mistake_there_is_no_complaint(answers, root: Path) -> None:
    """Or the tests below would pass on a recipe that never runs."""
    assert answers["none"][0] == 0, answers["none"][1][-2000:]
    assert (root / "trained/report/report.json").is_file()


@pytest.mark.parametrize("name", MISTAKES)
def test_one_paragraph_names_the_culprit_and_the_way_out(
    name: str, answers, root: Path
) -> None:
    """And the status is that of a wrong command line."""
    status, stderr = answers[name]
    mistake = MISTAKES[name]
    assert status == 2, stderr[-2000:]
    paragraph = stderr.strip()
    culprit = mistake.culprit.replace("ROOT", str(root))
    assert paragraph.startswith(f"error: {culprit}")
    assert mistake.way_out.replace("ROOT", str(root)) in paragraph
    assert "\n" not in paragraph and "Traceback" not in paragraph
    assert paragraph.endswith((".", ")", "?", "...")), paragraph


@pytest.mark.parametrize(
    "name", ["missing data folder", "NaN samples, not prepared"]
)
def test_a_shell_sees_status_2_and_no_traceback(
    name: str,
    root: Path,
    shrink: tuple[str, ...],
    recipe_folder: Path,
    run_python: Run,
) -> None:
    """Of the script itself, before and in the middle of training."""
    line = command(MISTAKES[name], root, 1000, shrink)
    done = run_python("train.py", *line)
    assert done.returncode == 2, done.stdout[-1000:] + done.stderr[-1000:]
    last = done.stderr.rstrip().rsplit("\n\n", 1)[-1]
    culprit = MISTAKES[name].culprit.replace("ROOT", str(root))
    assert last.startswith(f"error: {culprit}") and "\n" not in last
    assert "Traceback" not in done.stdout + done.stderr


def test_the_seed_sets_the_first_weights(recipe_folder: Path) -> None:
    """Two runs with one seed start alike, with two seeds they do not."""

    def weights(seed: int) -> list[float]:
        overrides = f"data_folder: none\nseed: {seed}\nd_model: 16\nnhead: 2"
        path = str(recipe_folder / "hparams/demo.yaml")
        model = load_options(path, overrides)["model"]
        return [p.detach().double().sum().item() for p in model.parameters()]

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)
