"""A generated corpus and a way to run the recipe on it.

Authors
 * The speechbrain-ee contributors 2026
"""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16000
WORD_S = 0.3
WORDS = (
    "zero one two three four five six seven eight nine alpha bravo charlie "
    "delta echo foxtrot golf hotel india juliet"
).split()
# Utterances of every split name that a YAML of the recipe asks for.
SPLITS = {
    "train-clean": 12,
    "train-clean-100": 4,
    "train-clean-360": 4,
    "train-other-500": 4,
    "train": 12,
    "dev-clean": 4,
    "dev": 4,
    "test-clean": 4,
    "test-other": 4,
    "test": 4,
}
# Everything that costs time made small; depth and exits stay as they are.
SHRINK = (
    "--device=cpu",
    "--noprogressbar",
    "--d_model=16",
    "--nhead=2",
    "--d_ffn=32",
    "--kernel_size=5",
    "--output_neurons=32",
    "--train_dataloader_opts={num_workers: 0}",
    "--valid_dataloader_opts={num_workers: 0, batch_size: 4}",
    "--test_dataloader_opts={num_workers: 0, batch_size: 4}",
)
# What makes attention heads small, too, for a system that has them.
SHRINK_DECODING = ("--num_decoder_layers=1", "--search={beam_size: 2}")
TIMEOUT_S = 1800  # only against hanging: the machine may be busy


def say(words: list[str], rng: np.random.Generator) -> np.ndarray:
    times = np.arange(round(WORD_S * RATE)) / RATE
    window = np.hanning(len(times))
    parts = []
    for word in words:
        low, high = 200 + 40 * WORDS.index(word), 1000 + 130 * len(word)
        tones = np.sin(2 * np.pi * low * times * rng.uniform(0.97, 1.03))
        tones += np.sin(2 * np.pi * high * times)
        parts.append(0.2 * window * tones)
    wave = np.concatenate(parts)
    return wave + 0.01 * rng.standard_normal(len(wave))


def write_split(folder: Path, speaker: int, number: int) -> None:
    rng = np.random.default_rng(speaker)
    chapter = folder / str(speaker) / "1"
    chapter.mkdir(parents=True)
    lines = []
    for index in range(number):
        words = list(rng.choice(WORDS, rng.integers(2, 6)))
        name = f"{speaker}-1-{index:04d}"
        suffix = "flac" if index % 2 else "wav"
        soundfile.write(
            chapter / f"{name}.{suffix}", say(words, rng), RATE, "PCM_16"
        )
        lines.append(f"{name} {' '.join(words)}\n")
    (chapter / f"{speaker}-1.trans.txt").write_text("".join(lines), "utf-8")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for speaker, (split, number) in enumerate(SPLITS.items(), start=100):
        write_split(root / split, speaker, number)
    return root


@pytest.fixture(scope="session")
def recipe_folder(repository: Path) -> Path:
    return repository / "recipes/LibriSpeech/EarlyExit"


@pytest.fixture(scope="session")
def shrink() -> tuple[str, ...]:
    return SHRINK


@pytest.fixture(scope="session")
def ssl_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    @functools.cache
    def folder(system: str) -> Path:
        pytest.importorskip("transformers")
        from tests.models.ssl_models import FAMILIES, write_ssl_model

        families = [name for name in FAMILIES if name in system]
        target = tmp_path_factory.mktemp(system)
        if "whisper" in system:
            from tests.models.pretrained_models import write_model

            return write_model(
                target, "whisper", encoder_layers=6, max_source_positions=1500
            )
        return write_ssl_model(
            target,
            *(families or FAMILIES)[:1],
            style="large" if "large" in system else "base",
            num_hidden_layers=24 if "large" in system else 12,
        )

    return folder


@pytest.fixture(scope="session")
def shrunk(
    recipe_folder: Path,
    shrink: tuple[str, ...],
    ssl_folder: Callable[[str], Path],
) -> Callable[[str], tuple[str, ...]]:
    def flags(system: str) -> tuple[str, ...]:
        text = (recipe_folder / f"hparams/{system}.yaml").read_text("utf-8")
        keys = set(re.findall(r"(?m)^([A-Za-z_]\w*):", text))
        options = {"device", "noprogressbar"}  # of SpeechBrain
        kept = [
            flag
            for flag in (*shrink, *SHRINK_DECODING)
            if re.match(r"--(\w+)", flag)[1] in keys | options
        ]
        if "source" in keys:
            kept.append(f"--source={ssl_folder(system)}")
        return tuple(kept)

    return flags


@pytest.fixture(scope="session")
def run_python(
    recipe_folder: Path, repository: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(
        *arguments: object, cwd: Path = recipe_folder
    ) -> subprocess.CompletedProcess[str]:
        environment = dict(
            os.environ,
            OMP_NUM_THREADS="1",
            MPLBACKEND="agg",
            CUDA_VISIBLE_DEVICES="",
            PYTHONPATH=f"{recipe_folder}{os.pathsep}{repository}",
        )
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    return run
