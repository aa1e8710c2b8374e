"""Early exit on onnxruntime: the loop that a device runs, without torch.

It needs numpy, onnxruntime and sentencepiece, and for policies yaml and
rapidfuzz. Graphs come from :mod:`speechbrain_ee.inference.onnx.export`, and
criteria are those of :mod:`speechbrain_ee.exits.criteria`, which read what the
graphs give, and transcripts. Utterances that stop leave the batch; the others
go on, cut to the longest of them. What an utterance gets does not depend on
the batch it was in; in int8 the last bits do, since activations are quantised
for the whole batch.

Axes: B utterances of the batch, of which some are still in; E exits passed; S
samples, T frames, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from speechbrain_ee.data.words import decode, pieces_of
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.criteria.text import read_ngram
from speechbrain_ee.files import open_plain, restore, whole_file
from speechbrain_ee.inference.hypothesis import (
    Hypothesis,
    of_speech,
    read_tokenizer,
    timed_runs,
)
from speechbrain_ee.inference.live import LiveBatch, LivePolicy, Said
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.segmentation import speech_detector
from speechbrain_ee.schema import (
    Count,
    Finite,
    Positive,
    Record,
    plain,
    read_record,
)

SCHEMA = "early-exit-onnx/1"
MANIFEST_FILE = "onnx.json"
START_FILE = "start.onnx"  # from waveforms to the first layer
LANGUAGE_MODEL_FILE = "language_model.json.gz"  # of characters, of texts
PURPOSE = "ONNX graphs"
_WAY_OUT = "write the graphs again with `export --format onnx`"
_TRIED_SAMPLES = 8000
Array = NDArray[np.generic]
Quadratic = tuple[Finite, Finite, Finite]  # coefficients of 1, T, T squared


class Manifest(Record):
    """What ``onnx.json`` says of the graphs of a folder."""

    schema: Literal[SCHEMA]
    name: str  # of the system
    sample_rate: Positive  # samples per second of the audio
    exit_layers: Annotated[tuple[Positive, ...], Meta(min_length=1)]
    vocab_size: Annotated[int, Meta(ge=2)]  # blank included
    blank_index: Count
    positions: Literal["relative", "rotary", "none"]
    measures: tuple[str, ...]  # evidence that every segment puts out
    frame_s: Annotated[float, Meta(gt=0)]  # from one encoder frame to the next
    precisions: Annotated[
        tuple[Literal["fp32", "int8"], ...], Meta(min_length=1)
    ]
    default_policy: str | None  # followed if nothing is said
    hop: Positive  # samples from one frame of features to the next
    # Multiply-accumulates (MACs) of the start for so many hops of audio: 0,
    # 1, up to those of one encoder frame.
    start_macs: Annotated[tuple[int, ...], Meta(min_length=2)]
    # MACs of the layers of each segment and of its head, T encoder frames.
    segment_macs: tuple[Quadratic, ...]
    head_macs: tuple[Quadratic, ...]

    def __post_init__(self) -> None:
        exits = self.exit_layers
        if list(exits) != sorted({*exits}):
            raise ValueError(f"exit_layers: {list(exits)} do not increase")
        if self.blank_index >= self.vocab_size:
            raise ValueError(f"blank_index: {self.blank_index} is no token")
        for key in ("segment_macs", "head_macs"):
            if len(getattr(self, key)) != len(exits):
                raise ValueError(f"{key}: there are {len(exits)} exits")

    def macs(self, samples: int, frames: int, reads: tuple[int, ...]) -> int:
        """MACs of an utterance that ends at the last of the exits whose
        heads were read: those of ``evaluation.cost.CostModel``.
        """
        hops = len(self.start_macs) - 1
        # Every further encoder frame costs what the first one did.
        whole, rest = divmod(samples // self.hop, hops)
        each = self.start_macs[-1] - self.start_macs[0]
        start = self.start_macs[rest] + whole * each
        powers = np.array([1.0, frames, float(frames) ** 2])
        layers = np.array(self.segment_macs[: reads[-1]]).sum(0) @ powers
        heads = sum(np.array(self.head_macs[k - 1]) @ powers for k in reads)
        return round(float(start + layers + heads))


def segment_file(exit: int, precision: str) -> str:
    """File of the graph of a segment, by the exit that it ends with."""
    suffix = "" if precision == "fp32" else f".{precision}"
    return f"exit_{exit:02d}{suffix}.onnx"


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write ``onnx.json``."""
    with whole_file(Path(folder) / MANIFEST_FILE, text=True) as stream:
        stream.write(json.dumps(plain(manifest), indent=1) + "\n")


def read_manifest(folder: str | Path) -> Manifest:
    """Read ``onnx.json`` and check it; errors name file and key."""
    return read_record(Path(folder) / MANIFEST_FILE, Manifest, _WAY_OUT)


def load(name: str, purpose: str) -> ModuleType:
    """Import an optional package, or say what it is wanted for."""
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{purpose}: {name} is not there ({error}); install onnx and "
            "onnxruntime: pip install 'speechbrain-ee[onnx]'."
        ) from error


class GraphBatch(LiveBatch):
    """A batch on graphs."""

    def __init__(
        self,
        host: "OnnxRecogniser",
        policy: LivePolicy,
        wavs_BS: NDArray[np.float32],
        samples_B: NDArray[np.int64],
    ):
        super().__init__(host.manifest, policy, samples_B.tolist())
        self.host = host
        inputs = {"wavs": wavs_BS, "samples": samples_B}
        hidden, lengths_B, *positions = host.start.run(None, inputs)
        self._state = {"hidden": hidden, "lengths": lengths_B}
        if positions:
            self._state["positions"] = positions[0]
        self._depth = 0
        self._read: dict[str, Array] = {}
        self._wanted = ["log_probs"]
        if policy.scorer is not None:
            self._wanted += [each.name for each in policy.scorer.measures]

    def climb(self, exit: int) -> None:
        """Compute up to an exit, and read its head."""
        for segment in range(self._depth + 1, exit):
            self._run(segment, [])
        self._read = self._run(exit, self._wanted)
        self._depth = exit

    def measure(self) -> dict[str, Array]:
        """What the policy's measures give at this exit."""
        return {name: self._read[name] for name in self._wanted[1:]}

    def texts(self) -> list[str]:
        """What CTC's best path says at this exit."""
        return [one.texts[0] for one in self.said(np.arange(len(self.rows_B)))]

    def said(self, places: NDArray[np.int64]) -> list[Said]:
        """What this exit says of some of the utterances."""
        manifest = self.host.manifest
        layer = manifest.exit_layers[self._depth - 1]
        found = []
        for place in places:
            frames = int(self._state["lengths"][place])
            log_probs_TV = self._read["log_probs"][place, :frames]
            if not np.isfinite(log_probs_TV).all():
                raise InputError(
                    f"{manifest.name}: the graphs give NaN or infinite "
                    "numbers, as after a training that diverged; export "
                    "another model."
                )
            timed = timed_runs(
                log_probs_TV.argmax(-1),
                np.exp(log_probs_TV.max(-1)),
                manifest.blank_index,
                self.host.pieces,
            )
            tokens = [one.token for one in timed]
            text = decode(self.host.tokenizer, tokens)
            found.append(Said(layer, frames, tokens, timed, [text]))
        return found

    def select(self, keep: NDArray[np.int64]) -> None:
        """Go on with some of the utterances, cut to the longest."""
        state, kind = self._state, self.host.manifest.positions
        frames = state["hidden"].shape[1]
        lengths_B = state["lengths"][keep]
        shorter = int(lengths_B.max())
        if kind == "rotary":
            state["positions"] = state["positions"][:, :shorter]
        elif kind == "relative":
            # Distances -(T'-1) .. T'-1 out of -(T-1) .. T-1.
            cut = slice(frames - shorter, frames + shorter - 1)
            state["positions"] = state["positions"][:, cut]
        state["hidden"] = state["hidden"][keep, :shorter]
        state["lengths"] = lengths_B

    def _run(self, exit: int, wanted: Sequence[str]) -> dict[str, Array]:
        """Run a segment, and give what is wanted of it."""
        hidden, *values = self.host.segments[exit - 1].run(
            ["out", *wanted], self._state, self.host.options
        )
        self._state["hidden"] = hidden
        return dict(zip(wanted, values))


class OnnxRecogniser:
    """Transcribes with the graphs of a folder.

    Arguments
    ---------
    folder : str or Path
        What ``export --format onnx`` wrote.
    precision : str
        ``fp32`` or ``int8``.
    threads : int
        Threads of an operator.

    Raises
    ------
    InputError
        If the folder holds no such graphs.
    """

    def __init__(
        self, folder: str | Path, precision: str = "fp32", threads: int = 1
    ):
        self.folder = Path(folder)
        restore(self.folder)
        self.manifest = read_manifest(self.folder)
        if precision not in self.manifest.precisions:
            raise InputError(
                f"{self.folder / MANIFEST_FILE}: there are no graphs in "
                f"{precision!r}; there are some in "
                f"{', '.join(self.manifest.precisions)}."
            )
        library = load("onnxruntime", PURPOSE)
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        exits = range(1, len(self.manifest.exit_layers) + 1)
        # The start is the same in all precisions.
        files = [START_FILE]
        files += [segment_file(exit, precision) for exit in exits]
        start, *segments = [_session(self.folder / f, options) for f in files]
        self.start, self.segments = start, segments
        path = self.folder / "tokenizer.model"
        self.tokenizer = read_tokenizer(path, _WAY_OUT)
        self.pieces = pieces_of(self.tokenizer)
        self.speaks = speech_detector("energy")
        spelling = self.folder / LANGUAGE_MODEL_FILE
        self.policies = Policies(
            self.manifest.exit_layers,
            {
                path.stem: read_policy(path)
                for path in sorted(self.folder.glob("policies/*.yaml"))
            },
            self.manifest.default_policy,
            language_model=read_ngram(spelling) if spelling.exists() else None,
            measures=self.manifest.measures,
        )
        # What is fetched decides what is computed: no head that nobody reads.
        self.options = library.RunOptions()
        self.options.only_execute_path_to_fetches = True
        self._try()

    def _try(self) -> None:
        """Refuse graphs that do not fit each other or give no numbers."""
        noise = np.random.default_rng(0).normal(0, 0.1, _TRIED_SAMPLES)
        try:
            self.transcribe([noise], len(self.manifest.exit_layers))
        except InputError as error:
            raise InputError(f"{self.folder}: {error}") from error
        except Exception as error:  # onnxruntime's share no other class
            raise InputError(
                f"{self.folder}: the graphs cannot be run "
                f"({one_line(error)}); {_WAY_OUT}."
            ) from error

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio."""
        return self.manifest.sample_rate

    def resolve(self, given: Any = None) -> LivePolicy:
        """What to follow.

        Arguments
        ---------
        given : optional
            An exit, from 1, or ``last``; the name of a policy in the folder,
            or the path of a policy file; a criterion with a threshold
            (``entropy:0.9``); or a policy as an object. None: the folder's
            default.

        Returns
        -------
        LivePolicy

        Raises
        ------
        InputError
            If it is none of these, or reads what the graphs do not give.
        """
        return self.policies.resolve(given)

    def transcribe(
        self,
        waves: NDArray[np.number] | Sequence[NDArray[np.number]],
        policy: Any = None,
    ) -> Hypothesis | list[Hypothesis]:
        """Transcribe an utterance, or a batch of them.

        Arguments
        ---------
        waves : array of shape (samples,), or sequence of B of these
            Audio at the model's sample rate: numbers between -1 and 1, or
            integers of 16 bits.
        policy : optional
            See :meth:`resolve`.

        Returns
        -------
        Hypothesis or list of B Hypothesis
            One for one. What holds no speech is not given to the graphs.

        Raises
        ------
        InputError
            If a wave has another shape, or samples that are not finite.
        """
        # An array of arrays is a sequence, too.
        if getattr(waves, "ndim", 0) == 1 and waves.dtype != object:
            return self.transcribe([waves], policy)[0]
        followed = self.resolve(policy)
        read = [_wave(wave, place) for place, wave in enumerate(waves)]

        def run(heard: Sequence[NDArray[np.float32]]) -> list[Hypothesis]:
            samples_B = np.array([len(wave) for wave in heard])
            wavs_BS = np.zeros((len(heard), samples_B.max()), np.float32)
            for row, wave in zip(wavs_BS, heard):
                row[: len(wave)] = wave
            return self._run(wavs_BS, samples_B, followed)

        return of_speech(read, self.sample_rate, self.speaks, run)

    def run(self, wavs_BS: Any, wav_lens_B: Any, policy: Any = None) -> Any:
        """Transcribe a padded batch, as the runner on PyTorch does."""
        wavs_BS = np.asarray(wavs_BS, dtype=np.float32)
        lengths_B = np.asarray(wav_lens_B, dtype=np.float32) * wavs_BS.shape[1]
        # Of NaN both comparisons are false.
        whole = wavs_BS.shape[1] * (1 + 1e-6)
        if not ((lengths_B > 0) & (lengths_B <= whole)).all():
            raise InputError(
                "wav_lens: lengths are relative to the longest, above 0 and "
                "at most 1."
            )
        samples_B = lengths_B.round().astype(np.int64)
        return self._run(wavs_BS, samples_B, self.resolve(policy))

    def _run(
        self,
        wavs_BS: NDArray[np.float32],
        samples_B: NDArray[np.int64],
        policy: LivePolicy,
    ) -> list[Hypothesis]:
        return GraphBatch(self, policy, wavs_BS, samples_B).run()


def _wave(samples: Any, place: int) -> NDArray[np.float32]:
    """An utterance as the graphs take it, shape (samples,)."""
    wave = np.asarray(samples)
    if wave.ndim == 2 and 1 in wave.shape:
        wave = wave.reshape(-1)
    if wave.ndim != 1 or wave.dtype.kind not in "fi":
        raise InputError(
            f"waves[{place}]: {wave.dtype} of shape {wave.shape}; give "
            "samples of shape (samples,) between -1 and 1, or 16-bit integers."
        )
    if wave.dtype.kind == "i":
        wave = wave / -float(np.iinfo(wave.dtype).min)
    if not np.isfinite(wave).all():
        raise InputError(
            f"waves[{place}]: some samples are not finite (NaN or infinite); "
            "repair the recording, or leave it out."
        )
    return wave.astype(np.float32)


def _session(path: Path, options: Any) -> Any:
    try:
        with open_plain(path):
            pass
        return load("onnxruntime", PURPOSE).InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no other class
        raise InputError(
            f"{path}: cannot be loaded ({one_line(error)}); {_WAY_OUT}."
        ) from error
