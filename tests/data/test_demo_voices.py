"""Demo voices: no voice in two splits, each utterance on its own.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import numpy as np
import pytest

from speechbrain_ee.data.demo import voices as demo_voices

SPLITS = ("train-clean", "dev-clean", "test-clean", "test-other")


def test_no_variant_and_no_speaker_number_is_in_two_splits():
    speakers = [
        speaker
        for split in SPLITS
        for speaker in demo_voices.split_speakers(split, seed=5)
    ]
    numbers = [speaker.number for speaker in speakers]
    assert len(set(numbers)) == len(numbers) >= 24 + 8
    variants = [v for split in SPLITS for v in demo_voices.VARIANTS[split]]
    assert len(set(variants)) == len(variants)
    voices = [speaker.voice for speaker in speakers]
    assert len(set(voices)) == len(voices)


def test_espeak_knows_every_voice():
    pytest.importorskip("espeakng_loader")
    data = Path(demo_voices.load_synthesiser().get_data_path())
    known = {path.name for path in (data / "voices" / "!v").iterdir()}
    used = {v for split in SPLITS for v in demo_voices.VARIANTS[split]}
    assert used <= known


def test_a_sentence_does_not_depend_on_the_one_before():
    pytest.importorskip("espeakng_loader")
    ann, bob, *_ = demo_voices.split_speakers("test-clean", seed=1)

    def say(sentence: str, speaker: demo_voices.Speaker) -> np.ndarray:
        rng = np.random.default_rng(3)
        return demo_voices.synthesise(sentence, speaker, rng)

    alone = say("the lake is near.", ann)
    say("where is the tiny kettle?", bob)
    assert np.array_equal(alone, say("the lake is near.", ann))


def test_resampling_keeps_a_tone():
    time_s = np.arange(22050) / 22050
    tone = demo_voices.resample(np.sin(2 * np.pi * 1000 * time_s), 22050.0)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    np.testing.assert_allclose(tone, expected, atol=1e-9)
