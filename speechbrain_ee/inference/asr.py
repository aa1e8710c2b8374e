"""A recogniser that stops early: load a folder, transcribe.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.data.pieces import decode, pieces_of
from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.model_folder import ModelFolder
from speechbrain_ee.inference.live.hypothesis import Hypothesis
from speechbrain_ee.inference.live.policy import LivePolicy
from speechbrain_ee.inference.live.runner import LiveRunner
from speechbrain_ee.inference.policies import Policies, PolicyLike
from speechbrain_ee.inference.source import open_source

Audio = str | Path | Tensor | NDArray[np.floating]
# Padded seconds of a batch, where a list is transcribed.
BATCH_S = 60.0


class EarlyExitASR:
    """An early-exit recogniser, in the shape of SpeechBrain's ``EncoderASR``.

    Every utterance goes up the encoder as far as the policy wants it, alone
    or in a batch, with the same result. The policy can be changed at any
    time: the model is one for all compute budgets.

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
        :data:`speechbrain_ee.exits.decoding.methods.DECODINGS`; by default
        what the folder says.
    device : str or torch.device
        Where the model runs.

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
    ):
        self.folder = folder
        self.device = torch.device(device)
        self.runner = LiveRunner(
            folder.model.to(self.device),
            pieces_of(folder.tokenizer),
            self.decode,
            folder.sample_rate,
            decoding or folder.decoding,
            folder.search,
        )
        self.policies = Policies(
            folder.model.exit_layers,
            folder.policies,
            folder.default_policy,
            folder.selector,
            folder.combination,
            folder.calibration,
        )
        self._read = AudioReader(folder.sample_rate)
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
            ``device``, by default ``cpu``.
        policy : str, int, Path or policy, optional
            When to stop; by default the folder's own default.
        decoding : str, optional
            How the exit taken is decoded; by default what the folder says.
        trust : bool
            Allow a run's ``hyperparams.yaml`` to be executed, where its
            model has classes of the user's own.

        Returns
        -------
        EarlyExitASR

        Raises
        ------
        InputError
            If the source is no such folder, is damaged, or would have to be
            executed and is not trusted.
        """
        folder = open_source(source, savedir, trust)
        device = (run_opts or {}).get("device", "cpu")
        return cls(folder, policy, decoding, device)

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
        """When an utterance stops.

        May be set to whatever :meth:`Policies.resolve
        <speechbrain_ee.inference.policies.Policies.resolve>` takes.
        """
        return self._policy

    @policy.setter
    def policy(self, given: PolicyLike | None) -> None:
        """Follow another policy from now on."""
        self._policy = self.policies.resolve(given)

    def transcribe(
        self,
        audio: Audio | Sequence[Audio],
        policy: PolicyLike | None = None,
        batch_s: float = BATCH_S,
    ) -> Hypothesis | list[Hypothesis]:
        """Transcribe one utterance, or many in batches of like length.

        Arguments
        ---------
        audio : str, Path, tensor or array, or a sequence of these
            A file of any sample rate, or samples of shape (samples,) at the
            model's.
        policy : str, int, Path or policy, optional
            For this call alone.
        batch_s : float
            Most audio in a batch, in seconds, padding included.

        Returns
        -------
        Hypothesis or list of Hypothesis
            One for one; for a sequence a list in its order.

        Raises
        ------
        InputError
            If audio cannot be read, has another shape, or holds samples that
            are not finite.
        """
        one = isinstance(audio, str | Path | Tensor | np.ndarray)
        waves = [self._wave(each) for each in ([audio] if one else audio)]
        followed = self.policy
        if policy is not None:
            followed = self.policies.resolve(policy)
        found: list[Hypothesis | None] = [None] * len(waves)
        for batch in _batches(waves, batch_s * self.sample_rate):
            wavs_BS, lens_B = _padded([waves[place] for place in batch])
            heard = self._run(wavs_BS, lens_B, followed)
            for place, hypothesis in zip(batch, heard, strict=True):
                found[place] = hypothesis
        return found[0] if one else found

    def transcribe_file(self, path: str | Path) -> str:
        """Transcribe a file.

        Arguments
        ---------
        path : str or Path
            Audio of any sample rate.

        Returns
        -------
        str
            The words.
        """
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
            Lengths relative to the longest, shape (B,).

        Returns
        -------
        words : list of B str
            The words.
        tokens : list of B lists of int
            Their tokens.
        """
        heard = self._run(wavs.float(), wav_lens, self.policy)
        return [h.text for h in heard], [list(h.tokens) for h in heard]

    def decode(self, tokens: Iterable[int]) -> str:
        """Token indices to text.

        Arguments
        ---------
        tokens : iterable of int
            The tokens of an utterance.

        Returns
        -------
        str
        """
        return decode(self.folder.tokenizer, tokens)

    def _run(
        self, wavs_BS: Tensor, lens_B: Tensor, policy: LivePolicy
    ) -> list[Hypothesis]:
        wavs_BS, lens_B = wavs_BS.to(self.device), lens_B.to(self.device)
        return self.runner.run(wavs_BS, lens_B, policy)

    def _wave(self, audio: Audio) -> Tensor:
        if isinstance(audio, str | Path):
            return self._read(str(audio))
        wave = torch.as_tensor(audio)
        if wave.dim() != 1 or not len(wave):
            raise InputError(
                f"audio: samples of shape {tuple(wave.shape)}; give one "
                "channel of at least one sample, shape (samples,), at "
                f"{self.sample_rate} Hz."
            )
        wave = wave.float()
        if not torch.isfinite(wave).all():
            raise InputError(
                "audio: some samples are not finite (NaN or infinite); "
                "repair the recording, or leave it out."
            )
        return wave


def _batches(waves: Sequence[Tensor], most: float) -> Iterable[list[int]]:
    """Utterances of like length together, padding included in the bound."""
    order = sorted(range(len(waves)), key=lambda at: len(waves[at]))
    batch: list[int] = []
    for place in order:
        if batch and (len(batch) + 1) * len(waves[place]) > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _padded(waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A batch and its relative lengths."""
    wavs_BS = torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True)
    lengths_B = torch.tensor([len(wave) for wave in waves])
    return wavs_BS, lengths_B / wavs_BS.shape[1]
