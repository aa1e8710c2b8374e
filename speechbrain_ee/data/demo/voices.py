"""Who speaks in the demo corpus, and the synthesiser that lends the voice.

A speaker is an espeak-ng voice variant with an accent, a speaking rate, a
pitch, a liveliness and a length of the vocal tract. The variants of the
training, development and test splits are disjoint: nobody who is heard in a
test was heard in training.

espeak-ng comes from the optional package ``espeakng-loader`` and is imported
only when something is to be synthesised.

Authors
 * The speechbrain-ee contributors 2026
"""

import _ctypes
import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechbrain_ee.errors import InputError

SAMPLE_RATE = 16_000  # Hz, of the corpus

# espeak-ng's names of accents; "en" is its British English.
ACCENTS: tuple[str, ...] = (
    "en-us",
    "en",
    "en-gb-x-rp",
    "en-us-nyc",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-029",
    "en-gb-x-gbcwmd",
)

# Left out: whispers, robots, monsters, and the Klatt synthesiser's voices,
# whose noise cannot be seeded.
VARIANTS: dict[str, tuple[str, ...]] = {
    "train-clean": tuple(
        """m1 f1 m2 f2 m4 f4 m6 Alicia m8 Andrea Alex belinda Andy aunty
        Denis anika Diogo grandma Gene linda Lee Nguyen Marco shelby Mario
        steph2 Henrique antonio ian john norbert pablo paul pedro quincy
        robert sandro travis""".split()
    ),
    "dev-clean": ("m5", "steph3", "michel", "Jacky"),
    "test-clean": ("m3", "f3", "Michael", "steph", "victor", "Annie", "ed"),
    "test-other": ("m7", "f5", "Mike", "rob", "miguel", "gustave", "Hugo"),
}
SPEAKERS_PER_VARIANT = {"train-clean": 2, "dev-clean": 2}
# Above every speaker number of LibriSpeech, so that the two never mix.
FIRST_SPEAKER = 9001

_SYNCHRONOUS = 2  # espeak_Initialize: samples go to the callback, no thread
_DO_NOT_EXIT = 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_SetParameter
_UTF8 = 1
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_short),
    ctypes.c_int,
    ctypes.c_void_p,
)


@dataclass(frozen=True)
class Speaker:
    """One voice of the corpus."""

    number: int
    voice: str  # "accent+variant", as espeak-ng writes it
    rate_wpm: float  # words per minute
    pitch: float  # 0 to 100, relative to the variant's own
    liveliness: float  # espeak-ng's pitch range, 0 to 100
    tract: float  # factor on all resonances: above 1, a shorter vocal tract


def split_speakers(split: str, seed: int) -> tuple[Speaker, ...]:
    """The speakers of one split."""
    first = FIRST_SPEAKER
    for other, variants in VARIANTS.items():
        count = len(variants) * SPEAKERS_PER_VARIANT.get(other, 1)
        if other == split:
            break
        first += count
    entropy = np.random.SeedSequence([seed, first])
    rng = np.random.default_rng(entropy)
    variants = VARIANTS[split]
    speakers = []
    for index in range(count):
        # The second round meets other accents than the first.
        turn, which = divmod(index, len(variants))
        accent = ACCENTS[(which + 3 * turn) % len(ACCENTS)]
        speakers.append(
            Speaker(
                number=first + index,
                voice=f"{accent}+{variants[which]}",
                rate_wpm=float(rng.uniform(175, 215)),
                pitch=float(rng.uniform(38, 62)),
                liveliness=float(rng.uniform(35, 65)),
                tract=float(rng.uniform(0.95, 1.05)),
            )
        )
    return tuple(speakers)


def load_synthesiser() -> Any:
    """Import ``espeakng_loader``, the optional package."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise InputError(
            "The demo corpus is spoken by espeak-ng, which is not installed: "
            'run  pip install "speechbrain-ee[demo]"  and try again.'
        ) from error
    return espeakng_loader


def synthesise(
    sentence: str, speaker: Speaker, rng: np.random.Generator
) -> np.ndarray:
    """Let a speaker say a sentence."""
    samples, rate_hz = _speak(
        sentence,
        speaker.voice,
        rate_wpm=speaker.rate_wpm * rng.uniform(0.92, 1.08),
        pitch=speaker.pitch + rng.uniform(-4, 4),
        liveliness=speaker.liveliness + rng.uniform(-10, 10),
    )
    return resample(samples, rate_hz * speaker.tract)


def resample(samples: np.ndarray, rate_hz: float) -> np.ndarray:
    """Bring samples to 16 kHz by cutting their spectrum off."""
    count = round(len(samples) * SAMPLE_RATE / rate_hz)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return np.fft.irfft(spectrum, count) * (count / len(samples))


def _speak(
    sentence: str,
    voice: str,
    rate_wpm: float,
    pitch: float,
    liveliness: float,
) -> tuple[np.ndarray, int]:
    """Samples in [-1, 1] and their rate, from a freshly loaded library.

    espeak-ng carries the state of its flutter from one sentence to the next
    and offers no way to reset it. Loading the library anew costs about 5 ms
    and makes a sentence independent of what was said before it.
    """
    loader = load_synthesiser()
    chunks: list[bytes] = []

    def collect(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(collect)
    library = ctypes.CDLL(loader.get_library_path())
    try:
        data = str(loader.get_data_path()).encode()
        rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        if rate_hz <= 0:
            raise InputError(
                f"espeak-ng cannot start with its data in {data.decode()}: "
                "reinstall it with  pip install --force-reinstall "
                "espeakng-loader."
            )
        library.espeak_SetSynthCallback(callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(
                f"This espeak-ng has no voice {voice}: install the "
                'version that  pip install "speechbrain-ee[demo]"  brings.'
            )
        settings = {
            _RATE: rate_wpm,
            _PITCH: pitch,
            _RANGE: liveliness,
            _VOLUME: 60,  # the loud variants clip at the default of 100
        }
        for parameter, value in settings.items():
            library.espeak_SetParameter(parameter, round(value), 0)
        text = sentence.encode()
        library.espeak_Synth(
            text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, _UTF8, None, None
        )
        library.espeak_Terminate()
    finally:
        _unload(library)
    samples = np.frombuffer(b"".join(chunks), np.int16)
    return samples / 32768.0, rate_hz


def _unload(library: ctypes.CDLL) -> None:
    """Let go of a library, so that its next load starts from nothing."""
    unload = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary
    unload(library._handle)
