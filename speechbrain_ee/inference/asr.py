"""A recogniser that stops early: load a folder, transcribe.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechbrain_ee.data.words import decode
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.inference.folder.model_folder import (
    ModelFolder,
    fetch_folder,
)
from speechbrain_ee.inference.folder.training_run import open_folder
from speechbrain_ee.inference.hypothesis import Hypothesis, of_speech
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.inference.policies import PolicyLike
from speechbrain_ee.inference.recordings import (
    Recording,
    as_wave,
    open_recording,
    shown,
)
from speechbrain_ee.inference.runner import compile_segments
from speechbrain_ee.inference.segmentation import Cutting, speech_detector
from speechbrain_ee.inference.transcriber import (
    Failure,
    Transcriber,
    Transcript,
)

logger = logging.getLogger(__name__)

Audio = str | Path | Tensor | NDArray[np.number]
# Padded seconds of a batch, where a list is transcribed.
BATCH_S = 60.0
RUN_OPTS = ("device",)


class EarlyExitASR:
    """An early-exit recogniser, in the shape of SpeechBrain's ``EncoderASR``.

    Every utterance goes up the encoder as far as the policy wants it, alone
    or in a batch, with the same result. The policy can be changed at any
    time: the model is one for all compute budgets. Long audio is cut at
    pauses, and what holds no speech is not given to the model.

    Arguments
    ---------
    folder : ModelFolder
        A model with its tokenizer and its policies.
    policy : str, int, Path or policy, optional
        When to stop, see :meth:`Policies.resolve
        <speechbrain_ee.inference.policies.Policies.resolve>`; by default the
        folder's own default.
    decoding : str, optional
        How the exit taken is decoded, one of
        :data:`speechbrain_ee.exits.decoding.DECODINGS`; by default
        what the folder says.
    device : str or torch.device
        Where the model runs.
    vad : str
        What finds out whether anybody speaks, see
        :func:`~speechbrain_ee.inference.segmentation.speech_detector`.

    Example
    -------
    >>> asr = EarlyExitASR.from_hparams("results/digits/model")  # doctest: +SKIP
    >>> asr.transcribe("seven.flac").text  # doctest: +SKIP
    'SEVEN'
    >>> asr.policy = "macs=60%"  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: ModelFolder,
        policy: PolicyLike | None = None,
        decoding: str | None = None,
        device: str | torch.device = "cpu",
        vad: str = "auto",
    ):
        self.folder = folder
        self.speaks = speech_detector(vad)
        self.device = _device(device)
        folder.model.to(self.device)
        self.runner, self.policies = folder.live(decoding)
        self.policy = policy

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        savedir: str | Path | None = None,
        run_opts: Mapping[str, Any] | None = None,
        policy: PolicyLike | None = None,
        decoding: str | None = None,
        trust: bool = False,
        vad: str = "auto",
    ) -> "EarlyExitASR":
        """Load a recogniser.

        Arguments
        ---------
        source : str or Path
            An inference folder, as training and ``export`` write it, its
            name on the hub, or the output folder of a training run.
        savedir : str or Path, optional
            Where what is fetched from the hub is kept.
        run_opts : mapping, optional
            ``device``, by default ``cpu``; nothing else has a meaning here.
        policy : str, int, Path or policy, optional
            When to stop; by default the folder's own default.
        decoding : str, optional
            How the exit taken is decoded; by default what the folder says.
        trust : bool
            Allow a run's ``hyperparams.yaml`` to be executed, where its
            model has classes of the user's own.
        vad : str
            What finds out whether anybody speaks: ``silero``, ``energy``,
            ``off``, or ``auto`` for the first of these that is installed.

        Returns
        -------
        EarlyExitASR

        Raises
        ------
        InputError
            If the source is no such folder, is damaged, or would have to be
            executed and is not trusted; if an option is unknown, or there is
            no such device.
        """
        given = dict(run_opts or {})
        unknown = [name for name in given if name not in RUN_OPTS]
        if unknown:
            raise InputError(
                f"run_opts: {unknown[0]!r} is unknown here; valid: "
                f"{', '.join(RUN_OPTS)}. To compile the model, call "
                "compile()."
            )
        device = _device(given.get("device", "cpu"))
        folder = open_source(source, savedir, trust)
        return cls(folder, policy, decoding, device, vad)

    @property
    def model(self) -> Any:
        """The multi-exit model."""
        return self.folder.model

    @property
    def sample_rate(self) -> int:
        """Samples per second that the model hears."""
        return self.folder.sample_rate

    @property
    def policy(self) -> LivePolicy:
        """When an utterance stops; set it as :meth:`Policies.resolve
        <speechbrain_ee.inference.policies.Policies.resolve>` takes it."""
        return self._policy

    @policy.setter
    def policy(self, given: PolicyLike | None) -> None:
        """Follow another policy from now on."""
        self._policy = self.policies.resolve(given)

    def stream(
        self,
        audio: Iterable[Audio],
        policy: PolicyLike | None = None,
        batch_s: float = BATCH_S,
        max_s: float = Cutting.max_s,
        channel: int | None = None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe many, each as soon as it is ready.

        Audio is read no faster than it is transcribed, so that memory grows
        neither with its number nor with its length.

        Arguments
        ---------
        audio : iterable of str, Path, tensor or array
            A generator will do. This and the other arguments are those of
            :meth:`transcribe`.

        Yields
        ------
        Transcript or Failure
            For each in its order. What cannot be read is a Failure with the
            reason, and the others go on; of what breaks off, a Transcript
            with its ``fault``.

        Example
        -------
        >>> for said in asr.stream(paths):  # doctest: +SKIP
        ...     if isinstance(said, Transcript):
        ...         print(said.path, said.text)
        """
        transcriber = Transcriber(
            self,
            Cutting.within(max_s),
            batch_s,
            channel=channel,
            policy=self._policy
            if policy is None
            else self.policies.resolve(policy),
        )
        return transcriber.run(_recordings(audio))

    def transcribe(
        self,
        audio: Audio | Iterable[Audio],
        policy: PolicyLike | None = None,
        batch_s: float = BATCH_S,
        max_s: float = Cutting.max_s,
        channel: int | None = None,
    ) -> Hypothesis | list[Hypothesis]:
        """Transcribe one recording, or many in batches of like length.

        Arguments
        ---------
        audio : str, Path, tensor or array, or an iterable of these
            A file of any sample rate, or samples at the model's: shape
            (samples,) or (1, samples), between -1 and 1, or integers of 16
            bits.
        policy : str, int, Path or policy, optional
            For this call alone.
        batch_s : float
            Most audio in a batch, in seconds, padding included.
        max_s : float
            Longer recordings are cut at pauses into pieces of at most so
            many seconds, as the command does.
        channel : int, optional
            The channel of files that is heard, from 1; by default their
            average.

        Returns
        -------
        Hypothesis or list of Hypothesis
            One for one; for several a list in their order.

        Raises
        ------
        InputError
            If audio cannot be read, has another shape, or holds samples that
            are not finite. :meth:`stream` goes on with the others instead.
        """
        one = isinstance(audio, str | Path | Tensor | np.ndarray)
        if not one and (
            isinstance(audio, Mapping | bytes)
            or not isinstance(audio, Iterable)
        ):
            raise InputError(
                f"audio: a {type(audio).__name__}; give a file, or samples as "
                "a tensor or an array, or a list of these."
            )
        every = [audio] if one else audio
        said = []
        for found in self.stream(every, policy, batch_s, max_s, channel):
            if isinstance(found, Failure):
                raise InputError(found.reason)
            if found.fault is not None:
                logger.warning("%s: %s", shown(found.path), found.fault)
            said.append(found.hypothesis)
        return said[0] if one else said

    def recognise(
        self, waves: Sequence[Tensor], policy: LivePolicy | None = None
    ) -> list[Hypothesis]:
        """Transcribe one batch of waves, each float32 of shape (samples,)."""
        followed = self.policy if policy is None else policy

        def speaks(wave: Tensor, rate: int) -> bool:
            return self.speaks(wave.cpu().numpy(), rate)

        def run(heard: Sequence[Tensor]) -> list[Hypothesis]:
            return self.runner.run(*self._batch(heard), followed)

        return of_speech(waves, self.sample_rate, speaks, run)

    def transcribe_file(self, path: str | Path) -> str:
        """The words of a file of any length and sample rate."""
        return self.transcribe(path).text

    def transcribe_batch(
        self, wavs: Tensor, wav_lens: Tensor
    ) -> tuple[list[str], list[list[int]]]:
        """Transcribe a padded batch, as SpeechBrain's ``EncoderASR`` does.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, shape (B, samples), at :attr:`sample_rate`.
        wav_lens : torch.Tensor
            Lengths relative to the longest, shape (B,), above 0 and at most
            1.

        Returns
        -------
        words : list of B str
            The words.
        tokens : list of B lists of int
            Their tokens.
        """
        waves = _utterances(wavs, wav_lens, self.sample_rate)
        heard = self.recognise(waves)
        return [h.text for h in heard], [list(h.tokens) for h in heard]

    def __call__(
        self, wavs: Tensor, wav_lens: Tensor
    ) -> tuple[list[str], list[list[int]]]:
        """The same as :meth:`transcribe_batch`."""
        return self.transcribe_batch(wavs, wav_lens)

    @torch.no_grad()
    def encode_batch(
        self, wavs: Tensor, wav_lens: Tensor, exit: int | None = None
    ) -> Tensor:
        """Hidden states of a padded batch below an exit.

        Arguments
        ---------
        wavs, wav_lens : torch.Tensor
            As for :meth:`transcribe_batch`.
        exit : int, optional
            From 1; by default the last.

        Returns
        -------
        torch.Tensor
            After the layer that the exit follows, shape (B, frames, features).
        """
        layers = self.model.exit_layers
        (exit,) = LivePolicy.fixed(exit or len(layers), layers).exits
        waves = _utterances(wavs, wav_lens, self.sample_rate)
        state = self.model.start(*self._batch(waves))
        return self.model.walk(state, exit)[0].hidden_BTD

    def load_audio(
        self, path: str | Path, channel: int | None = None
    ) -> Tensor:
        """Read a file, or a part of it, as the model hears it.

        Arguments
        ---------
        path : str or Path
            Audio of any sample rate, or a part of it in the notation of
            :mod:`speechbrain_ee.data.manifests`.
        channel : int, optional
            From 1; by default the average of all.

        Returns
        -------
        torch.Tensor
            Shape (samples,), at :attr:`sample_rate`.
        """
        recording = Recording(str(path), str(path))
        with open_recording(recording, self.sample_rate, channel) as audio:
            samples = np.concatenate([*audio])
        if audio.fault is not None:
            raise InputError(f"{shown(path)}: {audio.fault}; repair it.")
        return torch.from_numpy(samples)

    def to(self, device: str | torch.device) -> "EarlyExitASR":
        """Move the model; an InputError if there is no such device."""
        self.device = _device(device)
        self.model.to(self.device)
        return self

    def compile(self, backend: str = "inductor") -> "EarlyExitASR":
        """Compile the encoder's layers with ``torch.compile``.

        Compile this way only: ``torch.compile`` of the whole model would
        compute every layer for every utterance. Layer by layer, with dynamic
        batch and time, layers of one shape share what was compiled. The first
        batches are slow; ``inductor`` needs a C++ compiler on CPUs.
        """
        compile_segments(self.model, backend)
        return self

    def _batch(self, waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """A padded batch and its relative lengths, on the device."""
        wavs_BS = torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True)
        lens_B = torch.tensor([len(wave) for wave in waves]) / wavs_BS.shape[1]
        return wavs_BS.to(self.device), lens_B.to(self.device)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of an utterance from its tokens."""
        return decode(self.folder.tokenizer, tokens)


def open_source(
    source: str | Path,
    savedir: str | Path | None = None,
    trust: bool = False,
) -> ModelFolder:
    """The model of an inference folder, of its name on the hub, or of the
    output folder of a training run, as :meth:`EarlyExitASR.from_hparams`
    takes them.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = fetch_folder(str(source), savedir)
    return open_folder(folder, trust=trust)


def _recordings(audio: Iterable[Audio]) -> Iterator[Recording]:
    """What the transcriber reads, one after the other."""
    for place, each in enumerate(audio):
        if isinstance(each, str | Path):
            yield Recording(str(each), str(each))
        else:
            yield Recording(str(place), f"audio[{place}]", each, held=True)


def _device(device: str | torch.device) -> torch.device:
    """A device on which something can be computed."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"device: {device} cannot be used here ({one_line(error)}); give "
            "cpu, or a device that `torch.accelerator` finds."
        ) from None
    return found


def _utterances(
    wavs: Tensor, wav_lens: Tensor, sample_rate: int
) -> list[Tensor]:
    """The utterances of a padded batch."""
    wavs_BS, lens_B = torch.as_tensor(wavs), torch.as_tensor(wav_lens)
    if wavs_BS.dim() != 2 or lens_B.shape != wavs_BS.shape[:1]:
        raise InputError(
            f"wavs, wav_lens: shapes {tuple(wavs_BS.shape)} and "
            f"{tuple(lens_B.shape)}; give (B, samples) and (B,)."
        )
    # Of NaN both comparisons are false.
    wrong_B = ~((lens_B > 0) & (lens_B <= 1 + 1e-6))
    if wrong_B.any():
        place = int(wrong_B.nonzero()[0])
        raise InputError(
            f"wav_lens: {float(lens_B[place])} for utterance {place}; lengths "
            "are relative to the longest, above 0 and at most 1."
        )
    samples_B = (lens_B * wavs_BS.shape[1]).round().long().clamp(min=1)
    return [
        as_wave(wave[:samples], f"wavs[{place}]", sample_rate)
        for place, (wave, samples) in enumerate(zip(wavs_BS, samples_B))
    ]
