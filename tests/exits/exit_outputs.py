"""Random exits with attention heads that are sure of what they say.

Axes: B utterances, T frames, D width, V vocabulary entries.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import ExitOutput
from tests.helpers import shaken

BLANK, BOS, EOS = 0, 1, 2
NEVER = -1e4
D_MODEL = 16


def sure_attention(
    seed: int = 0,
    vocab: int = 7,
    end: float = 0.0,
    decoders: str = "shared",
    tokens: int = 3,
) -> AttentionHeads:
    """Heads with sharp outputs that say tokens from 3 on, or the end.

    ``end`` is its bias; behind ``tokens`` it becomes ever more probable.
    """
    torch.manual_seed(seed)
    attention = AttentionHeads(
        exit_layers=(2, 4),
        d_model=D_MODEL,
        vocab_size=vocab,
        decoders=decoders,
        num_layers=2,
        nhead=2,
        d_ffn=2 * D_MODEL,
        dropout=0.0,
    ).eval()
    shaken(attention, seed)
    # A direction of the states that the norms keep and that says: late.
    late_D = torch.ones(D_MODEL)
    late_D[::2] = -1
    for decoder in attention.decoders:
        places_S = torch.arange(decoder.max_tokens)
        late_S = (places_S - tokens).clamp(0, 10)
        with torch.no_grad():
            decoder.positions.pe += late_S.unsqueeze(1) * late_D
            decoder.output.weight *= 0.7
            decoder.output.weight[EOS] += 0.5 * late_D
            decoder.output.bias[[BLANK, BOS]] = NEVER
            decoder.output.bias[EOS] += end
    return attention


def random_output(
    lengths: Sequence[int], seed: int = 0, vocab: int = 7, sharpness: float = 2
) -> ExitOutput:
    """What an exit might say; padding holds other random numbers."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    logits = torch.randn(*shape, vocab, generator=generator)
    return ExitOutput(
        log_probs_BTV=(sharpness * logits).log_softmax(-1),
        lengths_B=torch.tensor(lengths),
        layer=2,
        blank_index=BLANK,
        hidden_BTD=torch.randn(*shape, D_MODEL, generator=generator),
    )


def chosen(output: ExitOutput, rows: Sequence[int]) -> ExitOutput:
    """Some utterances, padded no more than they need."""
    rows = list(rows)
    lengths_B = output.lengths_B[rows]
    frames = int(lengths_B.max())
    return replace(
        output,
        log_probs_BTV=output.log_probs_BTV[rows, :frames],
        hidden_BTD=output.hidden_BTD[rows, :frames],
        lengths_B=lengths_B,
    )


@torch.no_grad()
def said(
    attention: AttentionHeads, output: ExitOutput, tokens: Sequence[int]
) -> Tensor:
    """Teacher-forced log-probabilities of tokens and end, one utterance."""
    heard = torch.tensor([[BOS, *tokens]])
    targets = torch.tensor([*tokens, EOS])
    log_probs_SV = attention(1, output, heard)[0]
    return log_probs_SV[torch.arange(len(targets)), targets]


def ctc_log_prob(output: ExitOutput, tokens: Sequence[int]) -> float:
    """Log-probability of a transcript under CTC, one utterance."""
    return -float(
        torch.nn.functional.ctc_loss(
            output.log_probs_BTV.transpose(0, 1),
            torch.tensor([list(tokens)], dtype=torch.long),
            output.lengths_B,
            torch.tensor([len(tokens)]),
            reduction="sum",
        )
    )
