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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor

from speechbrain_ee.data.words import decode, pieces_of
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.registry import Criterion, read_threshold
from speechbrain_ee.exits.criteria.text import (
    OF_TEXT,
    CharNgram,
    measure_texts,
    read_ngram,
)
from speechbrain_ee.exits.policy import (
    ThresholdPolicy,
    check_exit,
    rule_for,
)
from speechbrain_ee.files import open_plain, read_bytes, restore
from speechbrain_ee.inference.hypothesis import (
    Gathered,
    Hypothesis,
    TimedToken,
    timed_runs,
    words_of,
)
from speechbrain_ee.inference.onnx.manifest import (
    LANGUAGE_MODEL_FILE,
    MANIFEST_FILE,
    START_FILE,
    TRANSCRIPTS,
    Manifest,
    load,
    read_manifest,
    segment_file,
)
from speechbrain_ee.inference.segmentation import NO_SPEECH, speech_detector

PURPOSE = "ONNX graphs"
LAST = "last"
_WAY_OUT = "export the model again"
_TRIED_SAMPLES = 8000
Array = NDArray[np.generic]


@dataclass(frozen=True)
class HostPolicy:
    """Which exits are read, and which utterances stop there."""

    exits: tuple[int, ...]  # that can be taken, from 1; all stop at the last
    layers: tuple[int, ...]  # that they follow
    rule: ThresholdPolicy | None = None  # None: there is one exit

    @classmethod
    def fixed(cls, exit: int, exit_layers: Sequence[int]) -> "HostPolicy":
        """All utterances take one exit."""
        check_exit(exit, exit_layers, "these graphs have")
        return cls((exit,), (exit_layers[exit - 1],))

    @classmethod
    def thresholds(
        cls,
        policy: Any,
        exit_layers: Sequence[int],
        evidence: Sequence[str],
        its_layers: Sequence[int] | None = None,
    ) -> "HostPolicy":
        """Thresholds on a criterion that reads ``evidence`` or transcripts;
        bare thresholds may say which exits' layers they are for.
        """
        exits, layers, rule = rule_for(
            policy, exit_layers, "these graphs have", its_layers
        )
        missing = {*get_criterion(policy.criterion).needs}
        missing -= {*evidence, TRANSCRIPTS}
        if missing:
            raise InputError(
                f"policy: {policy.criterion} reads {', '.join(sorted(missing))}"
                f", which is not known here; there are "
                f"{', '.join(evidence)} and transcripts."
            )
        return cls(exits, layers, rule)

    @property
    def criterion(self) -> Criterion | None:
        """What gives the scores; None where nothing is asked."""
        return None if self.rule is None else get_criterion(self.rule.criterion)


@dataclass
class HostEvidence:
    """What the utterances that are still in the batch have shown."""

    policy: HostPolicy
    rows: NDArray[np.int64]  # of the original batch
    language_model: CharNgram | None = None
    reads: list[int] = field(default_factory=list)  # exits whose heads ran
    gathered: Gathered = field(default_factory=Gathered)

    def __post_init__(self) -> None:
        found = self.policy.criterion
        needs = () if found is None else found.needs
        self.criterion = found
        self.of_text = tuple(name for name in needs if name in OF_TEXT)
        other = (*self.of_text, TRANSCRIPTS)
        self.measures = tuple(name for name in needs if name not in other)
        self.keeps_texts = TRANSCRIPTS in needs
        self.reads_texts = self.keeps_texts or bool(self.of_text)

    def looks(self, place: int) -> bool:
        """Whether an exit's head is read, by its place in the policy."""
        rule = self.policy.rule
        if place == len(self.policy.exits) - 1 or rule is None:
            return True
        remembers = self.criterion.sign is None
        return remembers or rule.decides(place + 1)

    def score(self) -> NDArray[np.float64]:
        """Scores at the exit where the batch stands."""
        layers = self.policy.layers[: len(self.reads)]
        evidence = self.gathered.evidence(
            layers, self.rows, "evidence of the graphs"
        )
        return self.criterion.scores(evidence)[:, -1]

    def add(
        self, values: dict[str, NDArray[np.floating]], texts: Sequence[str]
    ) -> None:
        """Note what an exit has shown."""
        read = {name: values[name] for name in self.measures}
        if self.of_text:
            read |= measure_texts(texts, self.language_model, self.of_text)
        self.gathered.add(read, texts if self.keeps_texts else None)

    def select(self, keep: NDArray[np.int64]) -> None:
        """Forget the utterances that have left."""
        self.rows = self.rows[keep]
        self.gathered.select(keep)


def resolve(
    given: Any,
    manifest: Manifest,
    policies: Mapping[str, ExitPolicy],
    language_model: CharNgram | None = None,
) -> HostPolicy:
    """See :meth:`OnnxRecogniser.resolve`."""
    layers = manifest.exit_layers
    evidence = manifest.measures
    if language_model is not None:
        evidence = (*evidence, *OF_TEXT)
    if given is None:
        given = manifest.default_policy or LAST
    if isinstance(given, HostPolicy):
        return given
    if hasattr(given, "rule"):  # a policy of the runner on PyTorch
        if given.rule is None:
            return HostPolicy.fixed(given.exits[-1], layers)
        return HostPolicy.thresholds(given.rule, layers, evidence, given.layers)
    if hasattr(given, "threshold"):
        return HostPolicy.thresholds(given, layers, evidence)
    text = str(getattr(given, "exit", given)).strip()
    if text == LAST or text.isdecimal():
        exit = len(layers) if text == LAST else int(text)
        return HostPolicy.fixed(exit, layers)
    named = text in policies or Path(text).is_file()
    rule = None if named else read_threshold(text)
    if rule is not None:
        return HostPolicy.thresholds(ThresholdPolicy(*rule), layers, evidence)
    if not named:
        raise InputError(
            f"policy: {text!r} is none of these graphs' policies "
            f"({', '.join(policies) or 'there are none'}) and no "
            f"file; give one of these, a policy file, an exit (1 to "
            f"{len(layers)}), or last."
        )
    policy = policies.get(text) or read_policy(text)
    return HostPolicy.thresholds(policy, layers, evidence)


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
        self.tokenizer = _tokenizer(self.folder / "tokenizer.model")
        self.pieces = pieces_of(self.tokenizer)
        self.speaks = speech_detector("energy")
        self.policies = {
            path.stem: read_policy(path)
            for path in sorted(self.folder.glob("policies/*.yaml"))
        }
        spelling = self.folder / LANGUAGE_MODEL_FILE
        self.language_model = None
        if spelling.exists():
            self.language_model = read_ngram(spelling)
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

    def resolve(self, given: Any = None) -> HostPolicy:
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
        HostPolicy

        Raises
        ------
        InputError
            If it is none of these, or reads what the graphs do not give.
        """
        return resolve(given, self.manifest, self.policies, self.language_model)

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
        rate = self.sample_rate
        said: list[Hypothesis | None] = [
            None
            if self.speaks(wave, rate)
            else Hypothesis.unheard(len(wave) / rate, NO_SPEECH)
            for wave in read
        ]
        heard = [place for place, one in enumerate(said) if one is None]
        if heard:
            samples_B = np.array([len(read[place]) for place in heard])
            wavs_BS = np.zeros((len(heard), samples_B.max()), np.float32)
            for row, place in zip(wavs_BS, heard):
                row[: len(read[place])] = read[place]
            found = self._run(wavs_BS, samples_B, followed)
            for place, hypothesis in zip(heard, found):
                said[place] = hypothesis
        return said

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
        policy: HostPolicy,
    ) -> list[Hypothesis]:
        inputs = {"wavs": wavs_BS, "samples": samples_B}
        hidden, lengths_B, *positions = self.start.run(None, inputs)
        state = {"hidden": hidden, "lengths": lengths_B}
        if positions:
            state["positions"] = positions[0]
        rows_B = np.arange(len(samples_B))
        known = HostEvidence(policy, rows_B, self.language_model)
        found: dict[int, Hypothesis] = {}
        depth = 0
        for place, exit in enumerate(policy.exits):
            for segment in range(depth + 1, exit):
                state |= self._climb(segment, state, ["out"])
            depth = exit
            if not known.looks(place):
                state |= self._climb(exit, state, ["out"])
                continue
            wanted = ["out", "log_probs", *known.measures]
            read = self._climb(exit, state, wanted)
            state["hidden"] = read["hidden"]
            stop_B, score_B = self._stops(place, exit, read, state, known)
            for row in np.flatnonzero(stop_B):
                at = known.rows[row]
                found[at] = self._hypothesis(
                    read["log_probs"][row, : state["lengths"][row]],
                    float(score_B[row]),
                    int(samples_B[at]),
                    known,
                )
            if stop_B.all():
                break
            if stop_B.any():
                keep = np.flatnonzero(~stop_B)
                known.select(keep)
                state = self._select(state, keep)
        return [found[row] for row in range(len(samples_B))]

    def _climb(
        self, exit: int, state: Mapping[str, Array], wanted: Sequence[str]
    ) -> dict[str, Array]:
        """Run a segment; its hidden states come under their input's name."""
        values = self.segments[exit - 1].run(
            list(wanted), dict(state), self.options
        )
        return {
            "hidden" if name == "out" else name: value
            for name, value in zip(wanted, values)
        }

    def _stops(
        self,
        place: int,
        exit: int,
        read: Mapping[str, Array],
        state: Mapping[str, Array],
        known: HostEvidence,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which utterances stop at an exit, and their scores."""
        policy, rows = known.policy, len(known.rows)
        known.reads.append(exit)
        score_B = np.full(rows, np.nan)
        if policy.rule is None or place == len(policy.exits) - 1:
            return np.ones(rows, dtype=bool), score_B
        texts: list[str] = []
        if known.reads_texts:
            pairs = zip(read["log_probs"], state["lengths"])
            texts = [self._text(one[:frames]) for one, frames in pairs]
        known.add(dict(read), texts)
        score_B = known.score()
        return policy.rule.stop(place + 1, score_B), score_B

    def _select(
        self, state: Mapping[str, Array], keep: NDArray[np.int64]
    ) -> dict[str, Array]:
        """The utterances that stay, cut to the longest of them."""
        frames = state["hidden"].shape[1]
        lengths_B = state["lengths"][keep]
        shorter = int(lengths_B.max())
        kept = {"hidden": state["hidden"][keep, :shorter], "lengths": lengths_B}
        if self.manifest.positions == "rotary":
            kept["positions"] = state["positions"][:, :shorter]
        elif self.manifest.positions == "relative":
            # Distances -(T'-1) .. T'-1 out of -(T-1) .. T-1.
            cut = slice(frames - shorter, frames + shorter - 1)
            kept["positions"] = state["positions"][:, cut]
        return kept

    def _text(self, log_probs_TV: NDArray[np.float32]) -> str:
        """What CTC's best path says, of an utterance without its padding."""
        timed = self._timed(log_probs_TV)
        return decode(self.tokenizer, [one.token for one in timed])

    def _hypothesis(
        self,
        log_probs_TV: NDArray[np.float32],
        score: float,
        samples: int,
        known: HostEvidence,
    ) -> Hypothesis:
        manifest, frames = self.manifest, len(log_probs_TV)
        timed = self._timed(log_probs_TV)
        tokens = tuple(one.token for one in timed)
        spoken = [token.confidence for token in timed]
        duration_s = samples / manifest.sample_rate
        text = decode(self.tokenizer, tokens)
        exit = known.reads[-1]
        macs = manifest.macs(samples, frames, tuple(known.reads))
        if known.criterion is not None:
            # The last exit is not asked.
            asked = len(known.reads) - (exit == known.policy.exits[-1])
            once = known.criterion.macs(frames, manifest.vocab_size)
            macs += asked * int(once)
        return Hypothesis(
            text=text,
            tokens=tokens,
            exit=exit,
            layer=manifest.exit_layers[exit - 1],
            score=score,
            confidence=sum(spoken) / len(spoken) if spoken else 0.0,
            words=words_of(timed, manifest.frame_s, duration_s),
            nbest=(text,),
            macs=macs,
            duration_s=duration_s,
        )

    def _timed(self, log_probs_TV: NDArray[np.float32]) -> list[TimedToken]:
        if not np.isfinite(log_probs_TV).all():
            raise InputError(
                f"{self.manifest.name}: the graphs give NaN or infinite "
                "numbers, as after a training that diverged; export another "
                "model."
            )
        path_T, prob_T = log_probs_TV.argmax(-1), np.exp(log_probs_TV.max(-1))
        return timed_runs(
            path_T, prob_T, self.manifest.blank_index, self.pieces
        )


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


def _tokenizer(path: Path) -> SentencePieceProcessor:
    try:
        content = read_bytes(path, _WAY_OUT)
        return SentencePieceProcessor(model_proto=content or b"\0")
    except RuntimeError as error:
        raise InputError(
            f"{path}: not a SentencePiece model; {_WAY_OUT}."
        ) from error
