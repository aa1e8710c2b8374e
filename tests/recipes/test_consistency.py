"""SpeechBrain's gates for a recipe: table, files, keys.

The table has the columns of SpeechBrain's own ``tests/recipes/*.csv``, so that
the recipe passes the same checks there.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import json
import re
from collections.abc import Collection
from pathlib import Path

import pytest

from speechbrain_ee.training.options import (
    BRAIN_KEYS,
    OPTIONAL_KEYS,
    READ_KEYS,
    SYSTEM_KEYS,
)

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = Path(__file__).with_name("LibriSpeech.csv")
RECIPE = ROOT / "recipes/LibriSpeech/EarlyExit"
TRAIN = RECIPE / "train.py"
COLUMNS = [
    "Task",
    "Dataset",
    "Script_file",
    "Hparam_file",
    "Data_prep_file",
    "Readme_file",
    "Result_url",
    "HF_repo",
    "test_debug_flags",
    "test_debug_checks",
    "performance",
]
SYSTEMS = {
    "demo",
    "conformer_ctc",
    "conformer_ctc_wright2024",
    "english5h",
    "digits",
    "conformer_aed",
    "demo_aed",
    "english5h_aed",
    "digits_aed",
    "wav2vec2_ctc",
    "hubert_ctc",
    "wavlm_ctc",
    "hubert_large_frozen",
    "tiny_ssl",
}
# What a system with attention heads has besides.
ATTENTION_KEYS = {
    "attention_exit_weights",
    "ctc_weight",
    "label_smoothing",
    "decodings",
    "decoded_exits",
    "search",
    "attention_decoders",
    "num_decoder_layers",
    "bos_index",
    "eos_index",
    "attention",
}
# What CTC heads can learn besides the transcript.
DISTILLATION_KEYS = {"distillation", "teacher_folder", "teacher"}
# What is said of an encoder that is trained from scratch.
SCRATCH_KEYS = {
    "num_encoder_layers",
    "d_model",
    "nhead",
    "d_ffn",
    "kernel_size",
    "attention_type",
    "encoder_module",
    "mask_padding",
    "dropout",
    "n_fft",
    "n_mels",
    "compute_features",
    "normalize",
    "features",
    "front_end",
    "stack",
}
# What is said of a pre-trained one and of its heads.
PRETRAINED_KEYS = {
    "source",
    "hub_folder",
    "freeze_convolutions",
    "freeze_backbone",
    "downsampling",
    "head",
    "head_width",
    "head_nhead",
    "head_dropout",
    "pretrained",
    "heads_first_epochs",
    "unfreeze_per_epoch",
    "layer_decay",
    "active_exits",
    "regime",
}
# What some of these have: a second optimiser.
BACKBONE_KEYS = {"lr_backbone", "backbone_opt_class", "lr_annealing_backbone"}


def read_rows() -> list[dict[str, str]]:
    """The rows of the table."""
    with TABLE.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def recipe_yamls() -> list[Path]:
    """Every system; sweep definitions (hpopt.yaml) are none."""
    found = (RECIPE / "hparams").glob("**/*.yaml")
    return sorted(path for path in found if path.name != "hpopt.yaml")


def yaml_id(path: Path) -> str:
    """A short name in test ids."""
    return path.stem


def test_columns() -> None:
    """SpeechBrain's eleven columns, in order."""
    with TABLE.open(encoding="utf-8", newline="") as stream:
        assert next(csv.reader(stream)) == COLUMNS
    for row in read_rows():
        assert None not in row and None not in row.values(), "ragged row"


def test_hparams_is_a_link_to_the_systems() -> None:
    """One folder of systems, seen from the recipe by a relative link."""
    link = RECIPE / "hparams"
    assert link.is_symlink() and not link.readlink().is_absolute()
    assert link.resolve() == ROOT / "hparams"


def test_every_yaml_has_one_row() -> None:
    """The table and the folder of systems name the same files."""
    listed = [row["Hparam_file"] for row in read_rows()]
    present = [path.relative_to(ROOT).as_posix() for path in recipe_yamls()]
    assert sorted(listed) == present
    assert {path.stem for path in recipe_yamls()} >= SYSTEMS


@pytest.mark.parametrize("row", read_rows(), ids=lambda row: row["Hparam_file"])
def test_files_of_a_row_exist(row: dict[str, str]) -> None:
    """Script, YAML, preparation and README are there."""
    for column in COLUMNS[2:6]:
        assert row[column], f"{column} is empty"
        assert (ROOT / row[column]).is_file(), row[column]


@pytest.mark.parametrize("row", read_rows(), ids=lambda row: row["Hparam_file"])
def test_row_can_be_debugged(row: dict[str, str]) -> None:
    """Flags that override existing keys, and files to look for."""
    flags = row["test_debug_flags"].split()
    assert flags and "file_exists=[" in row["test_debug_checks"]
    keys = top_level_keys((ROOT / row["Hparam_file"]).read_text("utf-8"))
    for flag in flags:
        name, _, value = flag.partition("=")
        assert name.startswith("--") and value, flag
        assert name[2:] in keys, f"{flag}: no such key in the YAML"


@pytest.mark.parametrize("row", read_rows(), ids=lambda row: row["Hparam_file"])
def test_row_checks_a_loss_that_the_log_has(row: dict[str, str]) -> None:
    """File, name, threshold and epoch, as SpeechBrain's tests parse them.

    10 per token and exit, where a model that guesses has about 4: the check
    is there for a loss that runs away or is no number.
    """
    (check,) = re.findall(
        r"performance_check=\[(.*?)\]", row["test_debug_checks"]
    )
    file, name, threshold, epoch = (part.strip() for part in check.split(","))
    assert (file, name) == ("train_log.txt", "train loss")
    assert file in row["test_debug_checks"].partition("]")[0]
    text = (ROOT / row["Hparam_file"]).read_text(encoding="utf-8")
    exits = json.loads(re.search(r"(?m)^exit_layers: (\[.*?\])", text)[1])
    assert threshold == f"<={10.0 * len(exits)}"
    epochs = re.search(r"--number_of_epochs=(\d+)", row["test_debug_flags"])[1]
    assert epoch == f"epoch: {epochs}"


@pytest.mark.parametrize("row", read_rows(), ids=lambda row: row["Hparam_file"])
def test_performance_of_a_row_is_in_the_readme(row: dict[str, str]) -> None:
    """An error rate in the table is one that the README explains."""
    readme = (ROOT / row["Readme_file"]).read_text(encoding="utf-8")
    rates = re.findall(r"WER=([\d.]+)%", row["performance"])
    assert bool(rates) == bool(row["performance"])
    for rate in rates:
        assert re.search(rf"(?<![\d.]){re.escape(rate)}(?![\d.])", readme), rate


@pytest.mark.parametrize("row", read_rows(), ids=lambda row: row["Hparam_file"])
def test_urls_of_a_row_are_in_the_readme(row: dict[str, str]) -> None:
    """A result or a model that is announced is also explained."""
    readme = (ROOT / row["Readme_file"]).read_text(encoding="utf-8")
    for url in (row["Result_url"] + " " + row["HF_repo"]).split():
        assert url in readme


def top_level_keys(text: str) -> list[str]:
    """Keys in the first column of a YAML text."""
    return re.findall(r"^([A-Za-z_]\w*):", text, re.MULTILINE)


def is_read(key: str, code: str) -> bool:
    """Whether code reads a key, in SpeechBrain's ways of writing that."""
    used = rf"""\[["']{key}["']\]|\b(?:hparams|modules)\.{key}\b"""
    return re.search(used, code) is not None


def unused_keys(yaml_text: str, read: set[str]) -> list[str]:
    """Top-level keys neither referred to in the YAML nor read by code."""
    code = re.sub(r"(?m)#.*$", "", yaml_text.replace("#!", "!"))
    references = set(read)
    for expression in re.findall(r"!(?:ref|copy)\s+(.*)", code):
        references |= set(re.findall(r"<(\w+)", expression))
    return [key for key in top_level_keys(code) if key not in references]


def test_rule_about_keys_finds_an_unused_one() -> None:
    """The check below can fail."""
    text = "a: 1\nb: !ref <a>\nc: 2\nlist: [!ref <c>]\n# d: !ref <e>\ne: 3\n"
    assert unused_keys(text, {"b"}) == ["list", "e"]
    assert unused_keys(text, {"b", "list", "e"}) == []


@pytest.mark.parametrize("key", sorted(READ_KEYS | OPTIONAL_KEYS.keys()))
def test_a_key_that_counts_as_read_is_read(key: str) -> None:
    """train.py or the library it calls does something with it."""
    files = [TRAIN, *(ROOT / "speechbrain_ee").rglob("*.py")]
    assert any(is_read(key, path.read_text("utf-8")) for path in files)


@pytest.mark.parametrize("path", recipe_yamls(), ids=yaml_id)
def test_every_key_is_used(path: Path) -> None:
    """A top-level key acts on something, or it misleads."""
    text = path.read_text(encoding="utf-8")
    read = READ_KEYS | SYSTEM_KEYS | BRAIN_KEYS | OPTIONAL_KEYS.keys()
    assert unused_keys(text, read) == []


@pytest.mark.parametrize("path", recipe_yamls(), ids=yaml_id)
def test_no_key_is_written_twice(path: Path) -> None:
    """Of two equal keys YAML would silently keep the last."""
    keys = top_level_keys(path.read_text(encoding="utf-8"))
    assert len(keys) == len(set(keys))


def structure(path: Path, left_out: Collection[str] = ()) -> tuple[str, ...]:
    """The keys of a YAML in order, the schedule's never among them."""
    schedules = {"warmup_share", "cooldown_share", "n_warmup_steps"}
    keys = top_level_keys(path.read_text(encoding="utf-8"))
    left_out = {*schedules, *left_out, *OPTIONAL_KEYS, *BACKBONE_KEYS}
    return tuple(key for key in keys if key not in left_out)


def test_systems_share_one_structure() -> None:
    """The same keys in the same order, but for what a kind needs alone."""
    yamls = recipe_yamls()
    own = ATTENTION_KEYS | SCRATCH_KEYS | PRETRAINED_KEYS
    every = own | DISTILLATION_KEYS
    assert len({structure(path, every) for path in yamls}) == 1
    kinds = {structure(path) for path in yamls}
    assert len(kinds) == 3
    for wanted in (
        SCRATCH_KEYS,
        SCRATCH_KEYS | ATTENTION_KEYS,
        PRETRAINED_KEYS,
    ):
        assert sum(set(kind) & own == wanted for kind in kinds) == 1
    for kind in kinds:
        assert set(kind) & DISTILLATION_KEYS in (set(), DISTILLATION_KEYS)


def test_a_name_says_the_kind() -> None:
    """Attention heads end in _aed; the others by their pre-trained model."""
    for path in recipe_yamls():
        keys = set(structure(path))
        assert path.stem.endswith("_aed") == bool(keys & ATTENTION_KEYS)
        known = re.search("ssl|wav2vec2|hubert|wavlm", path.stem)
        assert bool(known) == bool(keys & PRETRAINED_KEYS)
