"""Folders and files may have any name that a file system takes.

Traps avoided: options of SentencePiece in one string, which a space cuts; a
command line on which ``=`` becomes a space, ``#`` begins a comment and 1986 is
a number; a manifest whose reader takes ``$x`` for a variable.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import sys
from pathlib import Path

import pytest
import speechbrain as sb
import yaml

from speechbrain_ee.data.batches import make_datasets
from speechbrain_ee.data.corpora import prepare_librispeech, with_corpus
from speechbrain_ee.data.manifests import write_csv
from speechbrain_ee.data.preparation import dev_set_manifest
from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps.command import _value
from speechbrain_ee.training.options import literal, load_options, path_of
from tests.data.corpora import RATE, add, rows_of

NAMES = [
    "plain",
    "two spa ces",
    "a=b, c: d #1",
    'l\'été "x" \u65e5\u672c',
    "$HOME $data (x) [y] {z}",
    "-dash; & | < * ?",
    "1986",
    "%20~ \\n !",
    "n" * 200,
]


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of that name."""
    path = tmp_path / request.param
    path.mkdir()
    return path


def test_from_corpus_to_batches(folder):
    """Preparation, tokenizer, manifests and audio."""
    for number, words in enumerate(["A CAT SAT", 'COSTS $FIVE, \u00c9 "X"']):
        add(folder / "train", f"12-3-000{number}", words, 1 + number)
    save = folder / "out"
    prepare_librispeech(f"{folder}{os.sep}", save, ["train"])
    assert len(rows_of(save / "train.csv")) == 2
    given = {
        "save_folder": str(save / "save"),
        "data_folder": str(folder),
        "train_csv": str(save / "train.csv"),
        "valid_csv": str(save / "train.csv"),
        "test_csv": str(save / "train.csv"),
        "output_neurons": 30,
        "token_type": "bpe",
        "sample_rate": RATE,
        "cache_audio": False,
    }
    tokenizer = make_tokenizer(given)
    sets = make_datasets(given, tokenizer)
    found = {row["wrd"]: len(row["sig"]) for row in sets.train}
    assert found == {
        "A CAT SAT": RATE,
        'COSTS $FIVE, \u00c9 "X"': 2 * RATE,
    }


@pytest.mark.parametrize("form", ["--{}={}", "--{} {}"])
def test_on_the_command_line(form, folder, repository, monkeypatch):
    """What is written is what every key of the YAML gets."""
    monkeypatch.chdir(folder.parent)
    if form.startswith("--{} ") and folder.name.startswith("-"):
        pytest.skip("as for any program, an option may begin with a dash")
    relative = folder.name
    words = [str(repository / "hparams/demo.yaml"), "--device=cpu", "--lr=0.1"]
    for key, value in {
        "data_folder": f"{folder}/",
        "output_folder": relative,
        "train_csv": f"{folder}/mine=1.csv",
    }.items():
        given = form.format(key, "\0")
        words += [w.replace("\0", value) for w in given.split(" ")]
    path, run_opts, overrides = sb.parse_arguments(literal(words))
    overrides = with_corpus(path, overrides)
    options = load_options(path, overrides)
    assert options["data_folder"] == f"{folder}/"
    assert options["output_folder"] == relative
    assert options["save_folder"] == f"{relative}/save"
    assert options["train_csv"] == f"{folder}/mine=1.csv"
    assert Path(dev_set_manifest(options)) == Path(relative, "dev-clean.csv")
    assert options["lr"] == 0.1 and run_opts["device"] == "cpu"
    assert (folder / "save").is_dir(), "the checkpointer's"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--exit_budget=wer=+5%", "wer=+5%"),
        ("--test_csv=[a b.csv, 'c,d=e.csv']", ["a b.csv", "c,d=e.csv"]),
        ("--valid_csv='quoted = too.csv'", "quoted = too.csv"),
        ("--teacher_folder=null", None),
        ("--train_shards=/far/é #1=x", "/far/é #1=x"),
        ("--train_shards={source: 'https://h/x?a=b', buffer: 2}", "MAPPING"),
        ("--exit_layers=[2,4]", [2, 4]),
        ("--output_folder=1986", "1986"),
        ("--output_folder=a: b", "a: b"),
        ("--data_folder=~/x", os.path.expanduser("~/x")),
        ("--output_folder=[1]/x", "[1]/x"),
    ],
)
def test_values_reach_the_yaml(word, expected):
    """Also those that are no paths and hold an equals sign."""
    if expected == "MAPPING":
        expected = {"source": "https://h/x?a=b", "buffer": 2}
    _, _, overrides = sb.parse_arguments(literal(["demo.yaml", word]))
    (value,) = yaml.safe_load(overrides).values()
    assert value == expected


def test_in_a_sweep(folder):
    assert _value("data_folder", str(folder)) == str(folder)
    assert path_of("number_of_epochs", "3") is None


def test_two_spaces_in_a_row_are_refused(repository):
    """HyperPyYAML folds long lines there, and a folder is another one."""
    _, _, overrides = sb.parse_arguments(literal(["-", "--data_folder=a  b"]))
    with pytest.raises(InputError, match="--data_folder: 'a  b' holds two"):
        load_options(str(repository / "hparams/demo.yaml"), overrides)


def test_tables_keep_names(folder):
    path = folder / "t.csv"
    write_csv(path, ("ID", "path"), [("u", f'{folder}\n,"')])
    assert rows_of(path) == [{"ID": "u", "path": f'{folder}\n,"'}]


def test_options_of_speechbrain_stay(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    words = ["x.yaml", "--log_config=a=b", "--debug", "--device", "cpu"]
    assert literal(words) == words
