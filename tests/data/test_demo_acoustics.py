"""Demo acoustics: noise at its ratio, rooms of their reverberation time.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest

from speechbrain_ee.data.demo import acoustics as demo_acoustics


@pytest.mark.parametrize("snr_db", [0.0, 12.5])
def test_noise_is_mixed_at_the_ratio(snr_db: float):
    rng = np.random.default_rng(4)
    speech, noise = rng.standard_normal((2, 16000))
    added = demo_acoustics.add_noise(speech, noise, snr_db) - speech
    ratio = np.mean(speech**2) / np.mean(added**2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.05)


def test_a_room_rings_for_its_reverberation_time():
    click = np.zeros(16000)
    click[0] = 1.0
    echo = demo_acoustics.reverberate(click, 0.4, np.random.default_rng(6))
    tail_db = 10 * np.log10(np.cumsum(echo[:0:-1] ** 2)[::-1])
    # Schroeder's decay curve falls by 60 dB / 0.4 s
    fall = tail_db[int(0.05 * 16000)] - tail_db[int(0.15 * 16000)]
    assert fall == pytest.approx(15.0, abs=1.5)
    assert echo[0] == pytest.approx(1.0)
