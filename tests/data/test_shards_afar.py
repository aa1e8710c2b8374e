"""Shards from elsewhere: fetched once, kept below a limit, fetched again.

Authors
 * The speechbrain-ee contributors 2026
"""

import functools
import hashlib
import http.server
import os
import shutil
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from speechbrain_ee.data.clips import Clip
from speechbrain_ee.data.shards import (
    Shard,
    ShardIndex,
    ShardReader,
    ShardSource,
    read_all,
    write_training_manifest,
)
from speechbrain_ee.errors import InputError

pytest.importorskip("webdataset")

SIZE = 100_000  # bytes of a file
NAMES = [f"train-00000{number}.tar" for number in range(4)]


@pytest.fixture
def afar(tmp_path: Path) -> Path:
    """Where the files are; any bytes will do."""
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


def test_a_file_is_fetched_once(afar: Path) -> None:
    """By whatever process needs it first."""
    source = source_of(afar)
    reader = ShardReader(source)
    for number in (0, 1, 0, 1):
        content = bytes([number, 7]) * 5
        assert reader(clip(source, number)) == content
        assert ShardReader(source)(clip(source, number)) == content
    assert fetched(afar) == NAMES[:2]


def test_processes_do_not_fetch_the_same(afar: Path) -> None:
    source = source_of(afar)
    clips = [clip(source, number) for number in range(4)] * 5
    with ProcessPoolExecutor(4) as pool:
        found = list(pool.map(ShardReader(source), clips))
    assert found == [bytes([number, 7]) * 5 for number in range(4)] * 5
    assert sorted(fetched(afar)) == NAMES


def test_copies_stay_below_the_limit(afar: Path) -> None:
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


def test_a_broken_copy_is_fetched_again(afar: Path) -> None:
    source = source_of(afar)
    reader = ShardReader(source)
    reader(clip(source, 0))
    path = reader.cache.path(source.url(NAMES[0]))
    path.write_bytes(path.read_bytes()[:505])
    assert reader(clip(source, 0)) == bytes([0, 7]) * 5
    assert fetched(afar) == [NAMES[0]] * 2


def test_a_broken_file_is_named(afar: Path) -> None:
    """After a second look, and the next run looks again."""
    (afar / NAMES[0]).write_bytes(b"short")
    source = source_of(afar)
    with pytest.raises(InputError, match="bytes 500 to 510.*checksum") as error:
        ShardReader(source)(clip(source, 0))
    assert str(error.value).startswith(source.url(NAMES[0]))
    assert fetched(afar) == [NAMES[0]] * 2


@pytest.mark.parametrize("command", ["cat none", "head -c 9 {}; exit 3"])
def test_a_command_that_fails_is_named(command: str, afar: Path) -> None:
    """Also one that has written something: no half of a file is kept."""
    source = ShardSource(f"pipe:cd {afar}; {command} #{{}}", 1, str(afar / "c"))
    with pytest.raises(InputError, match="cannot be fetched .*exit") as error:
        ShardReader(source)(clip(source, 0))
    assert str(error.value).startswith(source.url(NAMES[0]))
    assert [p.suffix for p in (afar / "c").iterdir()] == [".lock"]
    with pytest.raises(InputError, match="cannot be fetched"):
        read_all(source.url(NAMES[0]))


def test_a_folder_that_cannot_be_written_is_named(afar: Path) -> None:
    (afar / "file").touch()
    source = ShardSource("pipe:cat {}", 1, str(afar / "file"))
    with pytest.raises(InputError, match="cache: .*file cannot be written"):
        ShardReader(source)(clip(source, 0))


def test_without_webdataset(
    afar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needed for what is elsewhere alone."""
    monkeypatch.setitem(sys.modules, "webdataset.gopen", None)
    with pytest.raises(InputError, match=r"webdataset is missing.*\[shards\]"):
        read_all("pipe:true")
    assert read_all(str(afar / NAMES[1]))[:2] == bytes([1, 7])


@pytest.fixture
def server(afar: Path) -> Iterator[str]:
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


def test_over_http(server: str, afar: Path) -> None:
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


def test_the_manifest_of_a_run_holds_urls(afar: Path) -> None:
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
