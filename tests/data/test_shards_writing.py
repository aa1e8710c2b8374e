"""Writing shards: the same bytes, from wherever it was stopped.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import os
import shutil
from pathlib import Path

import pytest

from speechbrain_ee.__main__ import main
from speechbrain_ee.data import shard_writer as archive
from speechbrain_ee.data import shard_writer as writing
from speechbrain_ee.data.shard_writer import write_shards
from speechbrain_ee.errors import InputError
from tests.data.corpora import SHARD_MB as SIZE_MB

UTTERANCES = 14


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bytes_depend_on_utterances_and_seed_alone(
    shard_manifest: Path, shards: Path, tmp_path: Path
) -> None:
    """Not on the folder, the time or how many are written at once."""
    write_shards(shard_manifest, tmp_path / "two", SIZE_MB, jobs=2)
    assert contents(tmp_path / "two") == contents(shards)
    for seed in (1, None):
        write_shards(shard_manifest, tmp_path / str(seed), SIZE_MB, seed=seed)
    orders = {}
    for name in ("two", "1", "None"):
        text = (tmp_path / name / "train.csv").read_text("utf-8")
        orders[name] = [row[0] for row in csv.reader(text.splitlines()[1:])]
    assert orders["None"] != orders["two"] != orders["1"]
    text = shard_manifest.read_text("utf-8").splitlines()[1:]
    assert orders["None"] == [row[0] for row in csv.reader(text)]


@pytest.mark.parametrize("stops_after", [0, 8, 12])
def test_a_run_that_was_stopped_goes_on(
    stops_after: int,
    shard_manifest: Path,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Complete shards stay as they are; the end is as if nothing had been."""
    calls = []

    def stopping(source: object) -> tuple[bytes, str]:
        calls.append(source)
        if len(calls) == stops_after + 1:
            raise KeyboardInterrupt
        return real(source)

    real = archive.sound_file
    monkeypatch.setattr(archive, "sound_file", stopping)
    folder = tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt):
        write_shards(shard_manifest, folder, SIZE_MB)
    assert not (folder / "shards.json").exists()
    assert not list(folder.glob(".*")), "no half of a shard is left"
    whole = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert bool(whole) == (stops_after > 0)
    write_shards(shard_manifest, folder, SIZE_MB)
    assert contents(folder) == contents(shards)
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    monkeypatch.setattr(archive, "sound_file", None)
    write_shards(
        shard_manifest, folder, SIZE_MB
    )  # and once more: nothing to do


def test_a_shard_that_was_deleted_is_written_again(
    shard_manifest: Path, shards: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(shards, tmp_path / "copy")
    (folder / "train-000001.tar").unlink()
    write_shards(shard_manifest, folder, SIZE_MB)
    assert contents(folder) == contents(shards)


def test_other_shards_are_not_overwritten(
    shard_manifest: Path, shards: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(shards, tmp_path / "copy")
    with pytest.raises(InputError, match="copy: holds shards of another"):
        write_shards(shard_manifest, folder, SIZE_MB, seed=5)
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
def test_bad_audio_is_named(
    wav: str, message: str, shard_manifest: Path, tmp_path: Path
) -> None:
    if "talk" in wav:
        wav = str(shard_manifest.parent / wav)
    (tmp_path / "bad.sph").write_bytes(b"no audio")
    wav = wav.replace("bad", str(tmp_path / "bad"))
    path = tmp_path / "mine.csv"
    path.write_text(f"ID,duration,wav,spk_id,wrd\nu1,1.0,{wav},s,A\n")
    with pytest.raises(InputError, match=message):
        write_shards(path, tmp_path / "out", SIZE_MB)


def test_a_full_disk_is_said(
    shard_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_shard", full)
    message = r"train-000000\.tar: cannot be written \(No space left"
    with pytest.raises(InputError, match=message):
        write_shards(shard_manifest, tmp_path / "out", SIZE_MB)


def test_command_line(
    shard_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `$data_root`, as manifests may have it."""
    moved = tmp_path / "dev.csv"
    text = shard_manifest.read_text("utf-8")
    moved.write_text(text.replace(str(shard_manifest.parent), "$data_root"))
    given = [str(moved), str(tmp_path / "out"), "--shard-size-mb=0.1"]
    main(["shards", *given, f"--data-folder={shard_manifest.parent}"])
    assert f"shards, 0.4 MB, {UTTERANCES} utterances" in capsys.readouterr().out
    assert (tmp_path / "out/dev-000000.tar").is_file()
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "shards",
                *given,
                f"--data-folder={shard_manifest.parent}",
                "--jobs=0",
            ]
        )
    assert stopped.value.code == 2
    assert os.listdir(tmp_path / "out")
