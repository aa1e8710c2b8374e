"""Shards: the same bytes wherever writing was stopped, read as written.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import functools
import hashlib
import http.server
import json
import os
import shutil
import sys
import threading
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from speechbrain_ee.__main__ import main
from speechbrain_ee.data import shards as shards_module
from speechbrain_ee.data.batches import make_datasets
from speechbrain_ee.data.manifests import Clip
from speechbrain_ee.data.shards import (
    Shard,
    ShardIndex,
    ShardReader,
    ShardSource,
    read_all,
    write_shards,
    write_training_manifest,
)
from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.errors import InputError
from tests.data.corpora import RATE, SHARD_MB, rows_of

UTTERANCES = 14

# ---- Writing ---------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bytes_depend_on_utterances_and_seed_alone(
    shard_manifest, shards, tmp_path
):
    """Not on the folder, the time or how many are written at once."""
    write_shards(shard_manifest, tmp_path / "two", SHARD_MB, jobs=2)
    assert contents(tmp_path / "two") == contents(shards)
    for seed in (1, None):
        write_shards(shard_manifest, tmp_path / str(seed), SHARD_MB, seed=seed)
    orders = {}
    for name in ("two", "1", "None"):
        text = (tmp_path / name / "train.csv").read_text("utf-8")
        orders[name] = [row[0] for row in csv.reader(text.splitlines()[1:])]
    assert orders["None"] != orders["two"] != orders["1"]
    text = shard_manifest.read_text("utf-8").splitlines()[1:]
    assert orders["None"] == [row[0] for row in csv.reader(text)]


@pytest.mark.parametrize("stops_after", [0, 8, 12])
def test_a_run_that_was_stopped_goes_on(
    stops_after, shard_manifest, shards, tmp_path, monkeypatch
):
    """Complete shards stay as they are; the end is as if nothing had been."""
    calls = []

    def stopping(source: object) -> tuple[bytes, str]:
        calls.append(source)
        if len(calls) == stops_after + 1:
            raise KeyboardInterrupt
        return real(source)

    real = shards_module.sound_file
    monkeypatch.setattr(shards_module, "sound_file", stopping)
    folder = tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt):
        write_shards(shard_manifest, folder, SHARD_MB)
    assert not (folder / "shards.json").exists()
    assert not list(folder.glob(".*")), "no half of a shard is left"
    whole = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert bool(whole) == (stops_after > 0)
    write_shards(shard_manifest, folder, SHARD_MB)
    assert contents(folder) == contents(shards)
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    monkeypatch.setattr(shards_module, "sound_file", None)
    write_shards(
        shard_manifest, folder, SHARD_MB
    )  # and once more: nothing to do


def test_other_shards_are_not_overwritten(shard_manifest, shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "copy")
    with pytest.raises(InputError, match="copy: holds shards of another"):
        write_shards(shard_manifest, folder, SHARD_MB, seed=5)
    assert contents(folder) == contents(shards)


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        ("none.flac", r"the audio of u1, .*none\.flac, does not exist"),
        ("$data_root/x.flac", r"\$data_root/x.flac.*--data-folder"),
        ("x.tar?bytes=1+2", r"u1 is in a shard already \(.*/x\.tar\)"),
        ("bad.sph?samples=0+9", r"bad\.sph\?samples=0\+9: the audio of u1"),
        ("talk.sph?samples=79000+2000", r"u1 is beyond the end of the rec"),
    ],
)
def test_bad_audio_is_named(wav, message, shard_manifest, tmp_path):
    if "talk" in wav:
        wav = str(shard_manifest.parent / wav)
    (tmp_path / "bad.sph").write_bytes(b"no audio")
    wav = wav.replace("bad", str(tmp_path / "bad"))
    path = tmp_path / "mine.csv"
    path.write_text(f"ID,duration,wav,spk_id,wrd\nu1,1.0,{wav},s,A\n")
    with pytest.raises(InputError, match=message):
        write_shards(path, tmp_path / "out", SHARD_MB)


def test_command_line(shard_manifest, tmp_path, capsys):
    """With `$data_root`, as manifests may have it."""
    moved = tmp_path / "dev.csv"
    text = shard_manifest.read_text("utf-8")
    moved.write_text(text.replace(str(shard_manifest.parent), "$data_root"))
    given = [str(moved), str(tmp_path / "out"), "--shard-size-mb=0.1"]
    main(["shards", *given, f"--data-folder={shard_manifest.parent}"])
    assert f"shards, 0.4 MB, {UTTERANCES} utterances" in capsys.readouterr().out
    assert (tmp_path / "out/dev-000000.tar").is_file()
    with pytest.raises(SystemExit):
        main(["shards", *given, "--jobs=0"])
    assert "--jobs" in capsys.readouterr().err


# ---- Reading ---------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(shard_manifest, tmp_path_factory):
    """What training sees, by id: of whole files, or of shards."""
    folder = tmp_path_factory.mktemp("save")
    hparams = {
        "data_folder": "",
        "train_csv": str(shard_manifest),
        "valid_csv": str(shard_manifest),
        "test_csv": [],
        "sample_rate": RATE,
        "cache_audio": False,
        "train_shards": None,
        "save_folder": str(folder),
        "output_neurons": 60,
        "token_type": "char",
    }
    tokenizer = make_tokenizer(hparams)
    columns = ["sig", "tokens", "wrd", "duration", "spk_id"]

    def see(source=None, **changes) -> dict[str, list]:
        own = {**hparams, "output_folder": str(folder), "train_shards": source}
        if source is not None:
            own["train_csv"] = str(folder / "train.csv")
        own |= changes
        write_training_manifest(own)
        train = make_datasets(own, tokenizer).train
        train.set_output_keys(["id", *columns])
        rows = {row["id"]: [row[name] for name in columns] for row in train}
        return {
            name: [sig.tolist(), tokens.tolist(), *rest]
            for name, (sig, tokens, *rest) in rows.items()
        }

    return see


@pytest.mark.parametrize("cache_audio", [False, True])
def test_training_sees_what_the_manifest_has(cache_audio, shards, seen):
    """Ids, durations, speakers, words, tokens and samples, bit for bit."""
    found = seen(str(shards), cache_audio=cache_audio)
    assert len(found) == UTTERANCES
    assert found == seen(cache_audio=cache_audio)


def test_webdataset_reads_the_same(shard_manifest, shards):
    """Sound files byte for byte; metadata beside each."""
    webdataset = pytest.importorskip("webdataset")
    paths = sorted(str(path) for path in shards.glob("*.tar"))
    found = {}
    for sample in webdataset.WebDataset(paths, shardshuffle=False):
        facts = json.loads(sample["json"])
        (sound,) = (k for k in sample if k in ("flac", "wav", "ogg"))
        found[facts["id"]] = sample[sound], facts
    rows = {row["ID"]: row for row in rows_of(shard_manifest)}
    assert found.keys() == rows.keys()
    for name, (sound, facts) in found.items():
        row = rows[name]
        assert facts["wrd"] == row["wrd"] and facts["spk_id"] == row["spk_id"]
        assert facts["duration"] == float(row["duration"])
        if "?" not in row["wav"]:
            assert sound == Path(row["wav"]).read_bytes()


def half(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def flipped(raw: bytes) -> bytes:
    return raw[:700] + bytes([raw[700] ^ 1]) + raw[701:]  # in the first sound


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-000002.tar", None, "this shard is missing"),
        ("train-000002.tar", half, r"this shard has \d+ bytes, not \d+ bytes"),
        (
            "train-000002.tar",
            flipped,
            r"bytes \d+ to \d+ of this shard .*checksum differs",
        ),
        ("shards.json", None, r"cannot be read .*shards. has"),
        ("shards.json", lambda _: b"{", "not a whole file"),
        (
            "shards.json",
            lambda _: b'{"format": 9}',
            "key format: 9 does not fit",
        ),
        (
            "shards.json",
            lambda raw: raw.replace(b"train-000001", b"../train-000001"),
            r"key shards\[1\]\.file: '\.\./train-000001",
        ),
        ("train.csv", lambda _: b"ID", "is not the manifest that"),
    ],
)
def test_damage_is_named(name, damage, message, shards, seen, tmp_path):
    path = shutil.copytree(shards, tmp_path / "copy") / name
    raw = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(raw))
    with pytest.raises(InputError, match=message) as error:
        seen(str(path.parent))
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "x", "shards": 3}, "shards.*buffer, cache, cache_gb"),
        ({"buffer": 3}, "key source: missing"),
        ({"source": "x", "buffer": 0}, "key buffer: 0 does not fit"),
        ({"source": "x", "cache_gb": 0}, "key cache_gb: 0 does not fit"),
        ("https://host/train", "not a local folder; give a folder for copies"),
    ],
)
def test_a_wrong_source_is_named(given, message):
    with pytest.raises(InputError, match=message):
        ShardSource.of(given)


def test_a_manifest_elsewhere_is_not_overwritten(shard_manifest, shards, seen):
    before = shard_manifest.read_bytes()
    with pytest.raises(InputError, match="leave train_csv out"):
        seen(str(shards), train_csv=str(shard_manifest))
    assert shard_manifest.read_bytes() == before


# ---- From elsewhere: fetched once, kept below a limit ----------------------


SIZE = 100_000  # bytes of a file
NAMES = [f"train-00000{number}.tar" for number in range(4)]


@pytest.fixture
def afar(tmp_path):
    """Where the files are; any bytes will do."""
    pytest.importorskip("webdataset")
    folder = tmp_path / "afar"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(bytes([number, 7]) * (SIZE // 2))
    return folder


def pipe(afar: Path, log: Path) -> str:
    """A source that notes what is fetched."""
    return f"pipe:echo {{}} >> {log}; cat {afar}/{{}}"


def clip(source: ShardSource, number: int) -> Clip:
    """Ten bytes of a file, with their checksum."""
    content = bytes([number, 7]) * 5
    url = source.url(NAMES[number])
    return Clip(url, "bytes", 500, 10, f"{zlib.crc32(content):08x}")


def source_of(
    afar: Path, cache_gb: float = 1.0, log: str = "log"
) -> ShardSource:
    """Copies beside the files."""
    cache = str(afar.parent / "cache")
    return ShardSource(pipe(afar, afar.parent / log), 2, cache, cache_gb)


def fetched(afar: Path) -> list[str]:
    """What was fetched, in order."""
    log = afar.parent / "log"
    return log.read_text().split() if log.exists() else []


def test_processes_do_not_fetch_the_same(afar):
    source = source_of(afar)
    clips = [clip(source, number) for number in range(4)] * 5
    with ProcessPoolExecutor(4) as pool:
        found = list(pool.map(ShardReader(source), clips))
    assert found == [bytes([number, 7]) * 5 for number in range(4)] * 5
    assert sorted(fetched(afar)) == NAMES


def test_copies_stay_below_the_limit(afar):
    """What was not read for the longest time goes first."""
    source = source_of(afar, cache_gb=2.5 * SIZE / 10**9)
    reader = ShardReader(source)
    cache = reader.cache
    for number in (0, 1):
        reader(clip(source, number))
        path = cache.path(source.url(NAMES[number]))
        os.utime(path, (number + 1, number + 1))
    reader(clip(source, 0))  # now 1 is the older
    reader(clip(source, 2))
    there = [cache.path(source.url(name)).exists() for name in NAMES]
    assert there == [True, False, True, False]
    with cache.open(source.url(NAMES[2])) as stream:
        cache.forget(source.url(NAMES[2]))
        assert len(stream.read()) == SIZE, "readable after it was deleted"
    assert reader(clip(source, 1)) == bytes([1, 7]) * 5
    assert fetched(afar) == [NAMES[n] for n in (0, 1, 2, 1)]


def test_a_broken_copy_is_fetched_again(afar):
    source = source_of(afar)
    reader = ShardReader(source)
    reader(clip(source, 0))
    path = reader.cache.path(source.url(NAMES[0]))
    path.write_bytes(path.read_bytes()[:505])
    assert reader(clip(source, 0)) == bytes([0, 7]) * 5
    assert fetched(afar) == [NAMES[0]] * 2


def test_a_broken_file_is_named(afar):
    """After a second look, and the next run looks again."""
    (afar / NAMES[0]).write_bytes(b"short")
    source = source_of(afar)
    with pytest.raises(InputError, match="bytes 500 to 510.*checksum") as error:
        ShardReader(source)(clip(source, 0))
    assert str(error.value).startswith(source.url(NAMES[0]))
    assert fetched(afar) == [NAMES[0]] * 2


@pytest.mark.parametrize("command", ["cat none", "head -c 9 {}; exit 3"])
def test_a_command_that_fails_is_named(command, afar):
    """Also one that has written something: no half of a file is kept."""
    source = ShardSource(f"pipe:cd {afar}; {command} #{{}}", 1, str(afar / "c"))
    with pytest.raises(InputError, match="cannot be fetched .*exit") as error:
        ShardReader(source)(clip(source, 0))
    assert str(error.value).startswith(source.url(NAMES[0]))
    assert [p.suffix for p in (afar / "c").iterdir()] == [".lock"]
    with pytest.raises(InputError, match="cannot be fetched"):
        read_all(source.url(NAMES[0]))


def test_without_webdataset(afar, monkeypatch):
    """Needed for what is elsewhere alone."""
    monkeypatch.setitem(sys.modules, "webdataset.gopen", None)
    with pytest.raises(InputError, match=r"webdataset is missing.*\[shards\]"):
        read_all("pipe:true")
    assert read_all(str(afar / NAMES[1]))[:2] == bytes([1, 7])


@pytest.fixture
def server(afar):
    """The same files behind HTTP."""
    if shutil.which("curl") is None:
        pytest.skip("webdataset fetches by curl")
    quiet = type(
        "Quiet",
        (http.server.SimpleHTTPRequestHandler,),
        {"log_message": lambda *_: None},
    )
    handler = functools.partial(quiet, directory=str(afar))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_over_http(server, afar):
    source = ShardSource.of({"source": server, "cache": str(afar / "c")})
    assert ShardReader(source)(clip(source, 3)) == bytes([3, 7]) * 5
    with pytest.raises(InputError, match=r"none\.tar: cannot be fetched"):
        read_all(source.url("none.tar"))


def write_index(afar: Path) -> None:
    """An index and a manifest of these files."""
    rows = [f"u{n},1.0,{name}?bytes=500+10,s,A" for n, name in enumerate(NAMES)]
    text = "\n".join(["ID,duration,wav,spk_id,wrd", *rows]) + "\n"
    (afar / "train.csv").write_text(text)
    shards = tuple(Shard(name, 1, 1.0, SIZE, "") for name in NAMES)
    digest = hashlib.sha256(text.encode()).hexdigest()
    index = ShardIndex("", "train.csv", digest, shards)
    (afar / "shards.json").write_text(index.to_json())


def test_the_manifest_of_a_run_holds_urls(afar):
    """And no shard is fetched before it is read."""
    write_index(afar)
    output = afar.parent / "out"
    output.mkdir()
    source = {"source": pipe(afar, afar.parent / "log"), "buffer": 2}
    source["cache"] = str(afar.parent / "cache")
    hparams = {"train_csv": str(output / "t.csv"), "output_folder": str(output)}
    write_training_manifest({**hparams, "train_shards": source})
    assert fetched(afar) == ["shards.json", "train.csv"]
    text = (output / "t.csv").read_text()
    assert text.count(f"cat {afar}/train-00000") == 4

    source["cache_gb"] = 1.9 * SIZE / 10**9
    with pytest.raises(InputError, match="less than the 2 shards"):
        write_training_manifest({**hparams, "train_shards": source})
