"""Shards hold what the manifest names, and say so when they do not.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from speechbrain_ee.data.batches import make_datasets
from speechbrain_ee.data.clips import Clip
from speechbrain_ee.data.shards import (
    ShardIndex,
    ShardSource,
    write_training_manifest,
)
from speechbrain_ee.errors import InputError
from tests.data.corpora import RATE, SHARD_MB

UTTERANCES = 14


class Words:
    """Stands for a tokenizer."""

    def __init__(self) -> None:
        self.sp = self

    def encode_as_ids(self, text: str) -> list[int]:
        """One token per letter."""
        return [ord(letter) for letter in text]

    def decode_ids(self, tokens: list[int]) -> str:
        """The letters again."""
        return "".join(map(chr, tokens))

    def get_piece_size(self) -> int:
        """As many as there are letters."""
        return sys.maxunicode + 1

    def unk_id(self) -> int:
        """No letter is unknown."""
        return -1


def options(shard_manifest: Path, output: Path, **changes: object) -> dict:
    """The keys that are read."""
    return {
        "data_folder": "",
        "output_folder": str(output),
        "train_csv": str(shard_manifest),
        "valid_csv": str(shard_manifest),
        "test_csv": [],
        "sample_rate": RATE,
        "cache_audio": False,
        "train_shards": None,
        **changes,
    }


def items(hparams: dict) -> dict[str, tuple]:
    """What training sees, by id."""
    write_training_manifest(hparams)
    train = make_datasets(hparams, Words()).train
    train.set_output_keys(["id", "sig", "wrd", "tokens", "duration", "spk_id"])
    return {
        row["id"]: (
            row["sig"],
            row["tokens"].tolist(),
            row["wrd"],
            row["duration"],
            row["spk_id"],
        )
        for row in train
    }


def assert_equal(found: dict[str, tuple], wanted: dict[str, tuple]) -> None:
    """Bit for bit."""
    assert found.keys() == wanted.keys()
    for name, (sig, *rest) in wanted.items():
        assert torch.equal(found[name][0], sig), name
        assert list(found[name][1:]) == rest


def read_from(
    shard_manifest: Path, output: Path, source: object, **changes: object
) -> dict[str, tuple]:
    """What training sees of some shards."""
    path = str(output / "train.csv")
    return items(
        options(
            shard_manifest,
            output,
            train_csv=path,
            train_shards=source,
            **changes,
        )
    )


@pytest.mark.parametrize("cache_audio", [False, True])
def test_training_sees_what_the_manifest_has(
    cache_audio: bool, shard_manifest: Path, shards: Path, tmp_path: Path
) -> None:
    """Ids, durations, speakers, words, tokens and samples."""
    given = {"cache_audio": cache_audio}
    found = read_from(shard_manifest, tmp_path, str(shards), **given)
    assert len(found) == UTTERANCES
    assert_equal(found, items(options(shard_manifest, tmp_path, **given)))


def test_the_index_counts_what_is_there(shards: Path) -> None:
    """Sizes and checksums of the files; durations of the manifest."""
    content = json.loads((shards / "shards.json").read_text("utf-8"))
    index = ShardIndex.from_json(json.dumps(content), "shards.json")
    assert content["utterances"] == UTTERANCES and len(index.shards) > 3
    with (shards / "train.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for shard in index.shards:
        raw = (shards / shard.file).read_bytes()
        assert len(raw) == shard.bytes <= 2 * SHARD_MB * 10**6
        assert hashlib.sha256(raw).hexdigest() == shard.sha256
        own = [r for r in rows if Clip.parse(r["wav"]).path == shard.file]
        assert len(own) == shard.utterances
        seconds = sum(float(row["duration"]) for row in own)
        assert shard.duration_s == pytest.approx(seconds)
    assert content["hours"] == pytest.approx(index.hours, abs=1e-5)
    names = {path.name for path in shards.iterdir()}
    wanted = {shard.file for shard in index.shards}
    assert names == wanted | {"train.csv", "shards.json"}, "notes are left"


def test_webdataset_reads_the_same(shard_manifest: Path, shards: Path) -> None:
    """Sound files byte for byte; metadata beside each."""
    webdataset = pytest.importorskip("webdataset")
    paths = sorted(str(path) for path in shards.glob("*.tar"))
    found = {}
    for sample in webdataset.WebDataset(paths, shardshuffle=False):
        facts = json.loads(sample["json"])
        (sound,) = (k for k in sample if k in ("flac", "wav", "ogg"))
        found[facts["id"]] = sample[sound], facts
    with shard_manifest.open(newline="", encoding="utf-8") as stream:
        rows = {row["ID"]: row for row in csv.DictReader(stream)}
    assert found.keys() == rows.keys()
    for name, (sound, facts) in found.items():
        row = rows[name]
        assert facts["wrd"] == row["wrd"] and facts["spk_id"] == row["spk_id"]
        assert facts["duration"] == float(row["duration"])
        if "?" not in row["wav"]:
            assert sound == Path(row["wav"]).read_bytes()


def damage(path: Path, how: str) -> None:
    """Spoil a shard."""
    raw = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "short":
        raw = raw[: len(raw) // 2]
    else:
        raw[700] ^= 1  # in the first sound file
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "this shard is missing"),
        ("short", r"this shard has \d+ bytes, not \d+ as shards\.json says"),
        ("flipped", r"bytes \d+ to \d+ of this shard .*checksum differs"),
    ],
)
def test_a_damaged_shard_is_named(
    how: str, message: str, shard_manifest: Path, shards: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(shards, tmp_path / "copy")
    damage(folder / "train-000002.tar", how)
    with pytest.raises(InputError, match=message) as error:
        read_from(shard_manifest, tmp_path, str(folder))
    assert str(error.value).startswith(str(folder / "train-000002.tar"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("shards.json", None, r"shards\.json: cannot be read .*shards. has"),
        ("shards.json", "{", r"shards\.json: is not an index of shards"),
        ("shards.json", '{"format": 9}', "format 9, not 1"),
        ("train.csv", "ID", r"train\.csv: is not the manifest that"),
    ],
)
def test_a_damaged_index_is_named(
    name: str,
    content: str | None,
    message: str,
    shard_manifest: Path,
    shards: Path,
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(shards, tmp_path / "copy")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_from(shard_manifest, tmp_path, str(folder))


def test_an_index_leads_nowhere_else(shards: Path) -> None:
    """It may come from a place that others write to."""
    text = (shards / "shards.json").read_text("utf-8")
    text = text.replace("train-000001.tar", "../train-000001.tar")
    with pytest.raises(InputError, match=r"files \['\.\./train-000001"):
        ShardIndex.from_json(text, "here")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "x", "shards": 3}, "shards.*buffer, cache, cache_gb"),
        ({"buffer": 3}, "has to name the source"),
        ({"source": "x", "buffer": 0}, "buffer: 0 must be"),
        ({"source": "x", "cache_gb": 0}, "cache_gb: 0 must be"),
        ("https://host/train", "no local folder; give a folder for copies"),
    ],
)
def test_a_wrong_source_is_named(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ShardSource.of(given)


def test_a_manifest_elsewhere_is_not_overwritten(
    shard_manifest: Path, shards: Path, tmp_path: Path
) -> None:
    before = shard_manifest.read_bytes()
    with pytest.raises(InputError, match="leave train_csv out"):
        write_training_manifest(
            options(shard_manifest, tmp_path, train_shards=str(shards))
        )
    assert shard_manifest.read_bytes() == before


def test_a_shard_is_not_read_without_its_source(
    shard_manifest: Path, shards: Path, tmp_path: Path
) -> None:
    """As where a manifest of shards is tested on."""
    read_from(shard_manifest, tmp_path, str(shards))
    plain = options(
        shard_manifest, tmp_path, train_csv=str(tmp_path / "train.csv")
    )
    with pytest.raises(InputError, match="part of a shard.*train_shards"):
        items(plain)
