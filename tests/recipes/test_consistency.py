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
COLUMNS = (
    "Task Dataset Script_file Hparam_file Data_prep_file Readme_file "
    "Result_url HF_repo test_debug_flags test_debug_checks performance"
).split()
SYSTEMS = set(
    """
    demo conformer_ctc conformer_ctc_wright2024 english5h digits
    conformer_aed demo_aed english5h_aed digits_aed wav2vec2_ctc
    hubert_ctc wavlm_ctc hubert_large_frozen tiny_ssl whisper_ctc
    """.split()
)
# What a system with attention heads has besides.
ATTENTION_KEYS = set(
    """
    attention_exit_weights ctc_weight label_smoothing decodings
    decoded_exits search attention_decoders num_decoder_layers bos_index
    eos_index attention
    """.split()
)
# What CTC heads can learn besides the transcript.
DISTILLATION_KEYS = {"distillation", "teacher_folder", "teacher"}
# What is said of an encoder that is trained from scratch.
SCRATCH_KEYS = set(
    """
    num_encoder_layers d_model nhead d_ffn kernel_size attention_type
    encoder_module mask_padding dropout n_fft n_mels compute_features
    normalize features front_end stack
    """.split()
)
# What is said of a pre-trained one and of its heads.
PRETRAINED_KEYS = set(
    """
    source hub_folder freeze_convolutions freeze_backbone downsampling
    head head_width head_nhead head_dropout pretrained
    heads_first_epochs unfreeze_per_epoch layer_decay active_exits
    regime
    """.split()
)
# What some of these have: a second optimiser.
BACKBONE_KEYS = {"lr_backbone", "backbone_opt_class", "lr_annealing_backbone"}


def read_rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def recipe_yamls() -> list[Path]:
    found = (RECIPE / "hparams").glob("**/*.yaml")
    return sorted(path for path in found if path.name != "hpopt.yaml")


def yaml_id(path: Path) -> str:
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
def test_a_row_of_the_table(row: dict[str, str]) -> None:
    """Files that exist, flags of existing keys, a loss to check that the log
    has, and an error rate that the README explains.
    """
    for column in COLUMNS[2:6]:
        assert (ROOT / row[column]).is_file(), row[column]
    text = (ROOT / row["Hparam_file"]).read_text("utf-8")
    flags = row["test_debug_flags"].split()
    assert flags and "file_exists=[" in row["test_debug_checks"]
    for flag in flags:
        name, _, value = flag.partition("=")
        assert name.startswith("--") and value, flag
        assert name[2:] in top_level_keys(text), f"{flag}: no such key"
    (check,) = re.findall(
        r"performance_check=\[(.*?)\]", row["test_debug_checks"]
    )
    file, name, threshold, epoch = (part.strip() for part in check.split(","))
    assert (file, name) == ("train_log.txt", "train loss")
    assert file in row["test_debug_checks"].partition("]")[0]
    exits = json.loads(re.search(r"(?m)^exit_layers: (\[.*?\])", text)[1])
    # 10 per token and exit, where a model that guesses has about 4.
    assert threshold == f"<={10.0 * len(exits)}"
    epochs = re.search(r"--number_of_epochs=(\d+)", row["test_debug_flags"])[1]
    assert epoch == f"epoch: {epochs}"
    readme = (ROOT / row["Readme_file"]).read_text(encoding="utf-8")
    rates = re.findall(r"WER=([\d.]+)%", row["performance"])
    assert bool(rates) == bool(row["performance"])
    for rate in rates:
        assert re.search(rf"(?<![\d.]){re.escape(rate)}(?![\d.])", readme), rate


def top_level_keys(text: str) -> list[str]:
    return re.findall(r"^([A-Za-z_]\w*):", text, re.MULTILINE)


def is_read(key: str, code: str) -> bool:
    used = rf"""\[["']{key}["']\]|\b(?:hparams|modules)\.{key}\b"""
    return re.search(used, code) is not None


def unused_keys(yaml_text: str, read: set[str]) -> list[str]:
    code = re.sub(r"(?m)#.*$", "", yaml_text.replace("#!", "!"))
    references = set(read)
    for expression in re.findall(r"!(?:ref|copy)\s+(.*)", code):
        references |= set(re.findall(r"<(\w+)", expression))
    return [key for key in top_level_keys(code) if key not in references]


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


def structure(path: Path, left_out: Collection[str] = ()) -> tuple[str, ...]:
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
