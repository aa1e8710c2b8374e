"""A small corpus, and where its manifests go.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv

import numpy as np
import pytest
import soundfile

from speechbrain_ee.data.shards import write_shards
from tests.data.corpora import RATE, SHARD_MB, add


@pytest.fixture
def corpus(tmp_path):
    """train: every format, two speakers; dev and test: one utterance."""
    root = tmp_path / "corpus"
    for number, suffix in enumerate(["wav", "flac", "opus", "ogg"]):
        add(root / "train", f"12-3-000{number}", "A B", 1 + number, suffix)
    add(root / "train", "9-1-0000", "C")
    add(root / "dev", "7-1-0000", "D")
    add(root / "test", "8-1-0000", "E")
    return root


@pytest.fixture
def save(tmp_path):
    """Where the manifests go."""
    return tmp_path / "save"


@pytest.fixture(scope="session")
def shard_manifest(tmp_path_factory):
    """Files of several formats and rates, and parts of a long recording."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(3)
    talk = folder / "talk.sph"
    noise = rng.normal(0, 0.1, 5 * RATE)
    soundfile.write(talk, noise, RATE, "PCM_16", format="NIST")
    rows = []
    for number in range(14):
        length = RATE // 2 + 1000 * number
        suffix = ("flac", "wav", "ogg")[number % 3]
        wav = str(folder / f"u{number}.{suffix}")
        rate = 8000 if number == 4 else RATE
        soundfile.write(wav, rng.normal(0, 0.1, length), rate)
        if number % 4 == 3:
            wav = f"{talk}?samples={3000 * number}+{length}"
        name = f"u.{number}/x" if number == 5 else f"u-{number:02d}"
        words = f'SAYS "{number}", É'
        rows.append([name, length / rate, wav, f"s{number % 2}", words])
    path = folder / "train.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        header = ["ID", "duration", "wav", "spk_id", "wrd"]
        csv.writer(stream).writerows([header, *rows])
    return path


@pytest.fixture(scope="session")
def shards(shard_manifest, tmp_path_factory):
    """Written once; only to be read."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(shard_manifest, folder, SHARD_MB)
    return folder
