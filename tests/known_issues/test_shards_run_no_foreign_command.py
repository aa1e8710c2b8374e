"""What an index or a manifest from elsewhere says starts no command.

Trap avoided: with a source such as ``pipe:cat /far/{}``, the names of files go
to a shell. They come from an index that others write, and rows of any manifest
may name a shard.

Authors
 * The speechbrain-ee contributors 2026
"""

import hashlib
import json
from pathlib import Path

import pytest

from speechbrain_ee.data.manifests import Clip
from speechbrain_ee.data.shards import (
    Shard,
    ShardIndex,
    ShardReader,
    ShardSource,
    stem_of,
    write_training_manifest,
)
from speechbrain_ee.errors import InputError

pytest.importorskip("webdataset")

SHARD = "train-000000.tar"


@pytest.fixture
def afar(tmp_path: Path) -> Path:
    """A folder of one shard, which a command reads."""
    folder = tmp_path / "afar"
    folder.mkdir()
    (folder / SHARD).write_bytes(bytes(1000))
    return folder


@pytest.fixture
def harm(tmp_path: Path) -> Path:
    """What a command of the attacker would make."""
    return tmp_path / "harm"


def hparams(afar: Path) -> dict:
    """A run that reads from there."""
    output = afar.parent / "out"
    output.mkdir()
    return {
        "train_csv": str(output / "train.csv"),
        "output_folder": str(output),
        "train_shards": {
            "source": f"pipe:cat {afar}/{{}}",
            "cache": str(afar.parent / "cache"),
        },
    }


def write(afar: Path, wav: str, name: str = "train.csv", **changes) -> None:
    """An index with one shard, and a manifest with one row."""
    text = f'ID,duration,wav,spk_id,wrd\nu1,1.0,"{wav}",s,A\n'
    (afar / "train.csv").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    shard = Shard(SHARD, 1, 1.0, 1000, "")
    content = json.loads(ShardIndex("", name, digest, (shard,)).to_json())
    content["shards"][0] |= changes
    (afar / "shards.json").write_text(json.dumps(content))


@pytest.mark.parametrize("key", ["manifest", "file"])
@pytest.mark.parametrize(
    "name",
    [
        ";touch HARM;#",
        "$(touch HARM)",
        "`touch HARM`",
        "a|touch HARM",
        "a b",
        "'",
        "-o",
        "..",
        "a\nb",
        "",
        7,
    ],
)
def test_names_of_the_index(key, name, afar, harm, monkeypatch):
    """Letters, digits and a few signs, whatever the source."""
    monkeypatch.chdir(harm.parent)
    given = name.replace("HARM", harm.name) if isinstance(name, str) else name
    if key == "file":
        write(afar, f"{SHARD}?bytes=0+10", file=given)
    else:
        write(afar, f"{SHARD}?bytes=0+10", name=given)
    with pytest.raises(
        InputError, match=rf"shards\.json, key .*\b{key}: .* does not fit"
    ):
        write_training_manifest(hparams(afar))
    assert not harm.exists()


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        ("; touch HARM #?bytes=0+10", "does not list"),
        ("other.tar?bytes=0+10", "does not list"),
        ("../afar/train-000000.tar?bytes=0+10", "does not list"),
        ("pipe:touch HARM?bytes=0+10", "does not list"),
        (f"{SHARD}?bytes=995+10", "beyond the end"),
        (f"{SHARD}?samples=0+10", "not a part of a shard"),
        ("/etc/passwd", "not a part of a shard"),
    ],
)
def test_rows_of_its_manifest(wav, message, afar, harm):
    write(afar, wav.replace("HARM", str(harm)))
    with pytest.raises(InputError, match=f"utterance u1 .*{message}"):
        write_training_manifest(hparams(afar))
    assert not harm.exists()


@pytest.mark.parametrize(
    "url", ["pipe:touch HARM", "file:///etc/passwd", "/etc/passwd", "SOURCE'"]
)
def test_rows_of_any_manifest(url, afar, harm):
    """Development and test sets are read by the same reader."""
    source = ShardSource.of(hparams(afar)["train_shards"])
    url = url.replace("HARM", str(harm)).replace("SOURCE", source.url(SHARD))
    with pytest.raises(InputError, match="is not a shard of train_shards"):
        ShardReader(source)(Clip(url, "bytes", 0, 10))
    assert not harm.exists()


@pytest.mark.parametrize(
    "source",
    [
        "pipe:cat AFAR/{}",
        "pipe:cd AFAR; cat {} # {}",
        "pipe:cat $(echo AFAR)/{}",
        "AFAR",
        "AFAR/",
        "AFAR/{}",
    ],
)
@pytest.mark.parametrize("file", [SHARD, "été+1.tar"])
def test_what_is_listed_is_read(source, file, afar):
    """Also by a command with signs of the shell, which is the user's own."""
    (afar / file).write_bytes(b"0123456789")
    given = source.replace("AFAR", str(afar))
    shards = ShardSource(given, 1, str(afar.parent / "cache"))
    found = ShardReader(shards)(Clip(shards.url(file), "bytes", 2, 3))
    assert found == b"234"


def test_shards_are_written_under_such_names():
    names = {
        stem_of(f"results/{name}.csv")
        for name in ("train", "my train", "a;b", "-x", "été", "a,b=c'd")
    }
    assert names == {"train", "my_train", "a_b", "_-x", "été", "a_b_c_d"}
