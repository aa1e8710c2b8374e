"""Rooms, noises and levels of the demo corpus.

Everything is computed from a random generator and the speech itself: a room
is noise that decays exponentially, a noise is white noise whose spectrum
falls with frequency, and babble is the utterance several times over,
reversed and shifted, which has the spectrum and the rhythm of speech without
its words.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np

from speechbrain_ee.data.demo.voices import SAMPLE_RATE

EDGE_S = 0.1  # silence that stays before and after the speech
_FRAME = SAMPLE_RATE // 100  # samples, 10 ms
_SILENCE_DB = -40.0  # below the loudest frame
_PEAK = 0.9


@dataclass(frozen=True)
class Condition:
    """How good or bad the recordings of a split are."""

    # of the utterances, disturbed; others have a quiet room's faint noise
    share: float = 0.0
    snr_db: tuple[float, float] = (10.0, 30.0)  # speech to noise, range
    rt60_s: tuple[float, float] = (0.1, 0.4)  # reverberation time, range
    room: float = 0.5  # of the disturbed utterances, reverberant


CONDITIONS: dict[str, Condition] = {
    "train-clean": Condition(share=0.3),
    "dev-clean": Condition(),
    "test-clean": Condition(),
    "test-other": Condition(
        share=1.0, snr_db=(2.0, 22.0), rt60_s=(0.1, 0.5), room=0.8
    ),
}
_QUIET_SNR_DB = (35.0, 50.0)


def trim_silence(speech: np.ndarray) -> np.ndarray:
    """Leave a tenth of a second of silence at either end."""
    power = frame_power(speech)
    loud = np.flatnonzero(power > power.max() * 10 ** (_SILENCE_DB / 10))
    speech = speech[loud[0] * _FRAME : (loud[-1] + 1) * _FRAME]
    return np.pad(speech, round(EDGE_S * SAMPLE_RATE))


def record(
    speech: np.ndarray, condition: Condition, rng: np.random.Generator
) -> np.ndarray:
    """Record clean speech under a split's conditions."""
    disturbed = rng.random() < condition.share
    snr_db = rng.uniform(*(condition.snr_db if disturbed else _QUIET_SNR_DB))
    sound = speech
    if disturbed and rng.random() < condition.room:
        sound = reverberate(speech, rng.uniform(*condition.rt60_s), rng)
    if disturbed and rng.random() < 0.4:
        noise = _babble(speech, rng)
    else:
        noise = _coloured_noise(len(speech), rng.uniform(0.0, 2.0), rng)
    sound = add_noise(sound, noise, snr_db)
    rms = 10 ** (rng.uniform(-30, -20) / 20)
    sound = sound * rms / np.sqrt(np.mean(sound**2))
    return sound * min(1.0, _PEAK / np.abs(sound).max())


def reverberate(
    speech: np.ndarray, rt60_s: float, rng: np.random.Generator
) -> np.ndarray:
    """Put speech into a room of exponentially decaying echoes."""
    time_s = np.arange(round(rt60_s * SAMPLE_RATE)) / SAMPLE_RATE
    echoes = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / rt60_s)
    echoes[: round(0.002 * SAMPLE_RATE)] = 0.0
    direct_to_echo_db = rng.uniform(0.0, 10.0)
    echoes *= 10 ** (-direct_to_echo_db / 20) / np.sqrt(np.sum(echoes**2))
    echoes[0] = 1.0
    size = len(speech) + len(echoes)
    spectrum = np.fft.rfft(speech, size) * np.fft.rfft(echoes, size)
    return np.fft.irfft(spectrum, size)[: len(speech)]


def add_noise(
    speech: np.ndarray, noise: np.ndarray, snr_db: float
) -> np.ndarray:
    """Mix speech and noise at a ratio."""
    power = frame_power(speech)
    active = power > power.max() * 10 ** (_SILENCE_DB / 10)
    wanted = power[active].mean() * 10 ** (-snr_db / 10)
    return speech + noise * np.sqrt(wanted / np.mean(noise**2))


def frame_power(sound: np.ndarray) -> np.ndarray:
    """Mean power of every whole frame of 10 ms."""
    whole = len(sound) // _FRAME * _FRAME
    return np.mean(sound[:whole].reshape(-1, _FRAME) ** 2, axis=1)


def _coloured_noise(
    count: int, exponent: float, rng: np.random.Generator
) -> np.ndarray:
    """Noise whose power falls as 1 / frequency ** exponent above 50 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency_hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    spectrum *= np.maximum(frequency_hz, 50.0) ** (-exponent / 2)
    return np.fft.irfft(spectrum, count)


def _babble(
    speech: np.ndarray, rng: np.random.Generator, voices: int = 6
) -> np.ndarray:
    """Speech without words: the utterance reversed, shifted and summed."""
    backwards = speech[::-1]
    return sum(
        np.roll(backwards, int(rng.integers(len(speech))))
        * rng.uniform(0.5, 1.0)
        for _ in range(voices)
    ) + 1e-4 * rng.standard_normal(len(speech))
