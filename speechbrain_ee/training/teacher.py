"""What a teaching exit says, and how far other exits are from it.

A teaching exit is the last one of a frozen teacher or of the model itself.
Targets never carry a gradient. Everything is computed per utterance and over
true lengths, so that neither padding nor the rest of the batch changes what
an utterance teaches.

Axes: B utterances, E exits, T frames, S tokens, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.models.heads import ExitOutput
from speechbrain_ee.models.padding import padding_mask


@torch.no_grad()
def run_teacher(
    teacher: nn.Module, wavs: Tensor, wav_lens: Tensor
) -> list[ExitOutput]:
    """What a model says in evaluation mode, without gradients.

    Dropout and layer-drop are off and no running statistic moves. No random
    number is drawn, so that training goes on as it would without a teacher.

    Arguments
    ---------
    teacher : torch.nn.Module
        The teacher, or the model itself, not wrapped by DDP. Afterwards
        every part of it is in the mode that it was in: frozen parts stay in
        evaluation mode.
    wavs : torch.Tensor
        Waveforms as the student hears them, augmented, shape (B, samples).
    wav_lens : torch.Tensor
        Lengths relative to the longest, shape (B,).

    Returns
    -------
    list of ExitOutput
        One output per exit of the teacher.
    """
    modes = [(module, module.training) for module in teacher.modules()]
    teacher.eval()
    try:
        return teacher(wavs, wav_lens)
    finally:
        for module, training in modes:
            module.training = training


def taught_transcripts(
    target: ExitOutput, tokens_BS: Tensor, token_counts_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Greedy transcripts of an exit, as targets for CTC.

    An exit that emits nothing of an utterance teaches the transcript itself.
    To learn all blanks from it would be the largest loss of the batch, since
    there is no token to divide it by, and would pull exits into the collapse
    that a young last exit is often in.

    Arguments
    ---------
    target : ExitOutput
        The exit that teaches.
    tokens_BS : torch.Tensor
        The utterances' transcripts, padded, shape (B, S).
    token_counts_B : torch.Tensor
        Tokens per utterance, shape (B,).

    Returns
    -------
    tokens_BS : torch.Tensor
        Transcripts of the teacher, padded, shape (B, S').
    counts_B : torch.Tensor
        Tokens per utterance, shape (B,).

    Example
    -------
    >>> frames = torch.tensor([[1, 1, 0, 2], [0, 0, 0, 0]])
    >>> one_hot = torch.nn.functional.one_hot(frames, 4).float()
    >>> target = ExitOutput(one_hot, torch.tensor([4, 4]), layer=2)
    >>> tokens, counts = torch.tensor([[3], [3]]), torch.tensor([1, 1])
    >>> taught_transcripts(target, tokens, counts)
    (tensor([[1, 2],
            [3, 0]]), tensor([2, 1]))
    """
    rows = [
        tokens_BS.new_tensor(found) if found else tokens[:count]
        for found, tokens, count in zip(
            greedy_tokens(target), tokens_BS, token_counts_B.tolist()
        )
    ]
    counts_B = token_counts_B.new_tensor([len(row) for row in rows])
    taught_BS = pad_sequence(rows, batch_first=True)
    # Where nothing is said at all, a column keeps the targets a matrix of
    # the kind that every CTC implementation takes.
    return F.pad(taught_BS, (0, int(taught_BS.shape[1] == 0))), counts_B


def frame_divergences(
    outputs: Sequence[ExitOutput], target: ExitOutput, temperature: float = 1.0
) -> Tensor:
    """Divergence of every exit's frames from those of a teaching exit.

    ``tau^2 / T sum_t KL(q_t || p_t)``, where q and p are the target's and the
    exit's distributions at temperature tau; the square keeps the size of the
    gradient (Hinton et al. 2015, arXiv 1503.02531).

    Arguments
    ---------
    outputs : sequence of ExitOutput
        The exits that learn.
    target : ExitOutput
        The exit that teaches, over the same frames; no gradient reaches it.
    temperature : float
        Tau, above 0. Above 1 it brings out the improbable tokens.

    Returns
    -------
    torch.Tensor
        Means over each utterance's frames, in nats per frame, shape (E, B).
    """
    padded_BT = padding_mask(target.lengths_B, target.log_probs_BTV.shape[1])

    def softened_BTV(output: ExitOutput) -> Tensor:
        # Padding may hold anything; equal values in it diverge by zero.
        log_probs_BTV = output.log_probs_BTV.masked_fill(
            padded_BT.unsqueeze(-1), 0.0
        )
        return torch.log_softmax(log_probs_BTV / temperature, dim=-1)

    target_BTV = softened_BTV(target).detach()
    frames_B = target.lengths_B.clamp(min=1)
    summed_EB = torch.stack(
        [
            F.kl_div(
                softened_BTV(output),
                target_BTV,
                reduction="none",
                log_target=True,
            ).sum((1, 2))
            for output in outputs
        ]
    )
    return temperature**2 * summed_EB / frames_B
