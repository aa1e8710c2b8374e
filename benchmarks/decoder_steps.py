#!/usr/bin/env python3
"""What do cached decoder steps save in a beam search?

Times ``AttentionBeamSearch``, whose decoder reads one token per step, against
SpeechBrain's ``S2STransformerBeamSearcher``, whose decoder reads the whole
hypothesis and projects all frames again at every step: the same decoder, the
same scorer, in turn in one process, and the same hypotheses.

The weights are random and the decoder never ends a transcript, so all
searches have the same number of steps.

> python benchmarks/decoder_steps.py

Axes: B utterances, K hypotheses of each, N = B K, T frames, S tokens, D width.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from environment import (
    add_numbers,
    describe,
    in_turn,
    markdown,
    parser_of,
    store,
)
from speechbrain.decoders.scorer import CTCScorer, ScorerBuilder
from speechbrain.decoders.seq2seq import S2STransformerBeamSearcher
from torch import Tensor

from speechbrain_ee.exits.decoding import AttentionBeamSearch, SearchOptions
from speechbrain_ee.models.attention import AttentionHeads
from speechbrain_ee.models.heads import ExitOutput

BLANK, BOS, EOS = 0, 1, 2
NEVER = -1e4
SHARPNESS = 3.0


class WholePrefix:
    """The decoder as SpeechBrain calls it: on whole hypotheses."""

    def __init__(self, attention: AttentionHeads):
        self.attention = attention

    def decode(
        self, tokens_NS: Tensor, memory_NTD: Tensor, lengths_N: Tensor
    ) -> tuple[Tensor, None]:
        """Logits of every next token, shape (N, S, V)."""
        decoder = self.attention.decoder(1)
        place_D = self.attention.places[0]
        return decoder(tokens_NS.long(), memory_NTD, lengths_N, place_D), None


class Plain(S2STransformerBeamSearcher):
    """SpeechBrain's search over the same decoder."""

    def __init__(
        self, attention: AttentionHeads, options: SearchOptions, joint: bool
    ):
        size = torch.nn.Identity()
        size.w = attention.decoder(1).output  # asked for its size only
        super().__init__(
            modules=[WholePrefix(attention), size],
            bos_index=BOS,
            eos_index=EOS,
            min_decode_ratio=0.0,
            max_decode_ratio=options.max_decode_ratio,
            beam_size=options.beam_size,
            eos_threshold=options.eos_threshold,
        )
        self.norm = attention.norms[0]
        self.options = options
        self.ctc_weight = options.ctc_weight if joint else 0.0
        self.attn_weight = 1.0 - self.ctc_weight

    def __call__(self, output: ExitOutput) -> list[list[int]]:
        """Best tokens of every utterance."""
        self.scorer = None
        if self.ctc_weight:
            ctc = CTCScorer(lambda _: output.log_probs_BTV.clone(), BLANK, EOS)
            self.scorer = ScorerBuilder(
                {"ctc": self.ctc_weight},
                partial_scorers=[ctc],
                scorer_beam_scale=self.options.scorer_beam_scale,
            )
        with torch.no_grad():
            memory_BTD = self.norm(output.hidden_BTD)
            lengths_B = output.lengths_B / memory_BTD.shape[1]
            return self.forward(memory_BTD, lengths_B)[0]


def build(arguments: argparse.Namespace) -> AttentionHeads:
    """A decoder with random weights that never ends a transcript."""
    attention = AttentionHeads(
        [12],
        arguments.d_model,
        arguments.vocab,
        bos_index=BOS,
        eos_index=EOS,
        num_layers=arguments.layers,
        nhead=4,
        d_ffn=arguments.d_ffn,
    ).eval()
    output = attention.decoder(1).output
    with torch.no_grad():
        # sure of what it says: rounding shall not change a ranking
        output.weight *= SHARPNESS
        output.bias[[BLANK, BOS, EOS]] = NEVER
    return attention


def random_output(arguments: argparse.Namespace, batch: int) -> ExitOutput:
    """What an exit might say of utterances of equal length."""
    shape = (batch, arguments.frames)
    logits_BTV = SHARPNESS * torch.randn(*shape, arguments.vocab)
    return ExitOutput(
        log_probs_BTV=logits_BTV.log_softmax(-1),
        lengths_B=torch.full((batch,), arguments.frames),
        layer=12,
        blank_index=BLANK,
        hidden_BTD=torch.randn(*shape, arguments.d_model),
    )


def same(cached: list[list[int]], plain: list[list[int]], steps: int) -> None:
    """Check that both found the same."""
    assert [len(tokens) for tokens in cached] == [steps] * len(cached)
    assert [tokens[:-1] for tokens in cached] == plain


def measure(
    attention: AttentionHeads,
    output: ExitOutput,
    options: SearchOptions,
    joint: bool,
    repeats: int,
) -> dict[str, Any]:
    """Time both searches on one batch, in turn."""
    cached = AttentionBeamSearch(attention, options, joint)
    searches = {
        "cached": lambda: [
            list(nbest.tokens) for nbest in cached.search(1, output)
        ],
        "plain": partial(Plain(attention, options, joint), output),
    }
    steps = int(output.log_probs_BTV.shape[1] * options.max_decode_ratio)
    same(searches["cached"](), searches["plain"](), steps)

    def clocked(search: Callable[[], Any]) -> float:
        start = time.perf_counter()
        search()
        return time.perf_counter() - start

    tasks = {name: partial(clocked, one) for name, one in searches.items()}
    times = {k: np.array(v) for k, v in in_turn(tasks, repeats).items()}
    ratio = float(np.median(times["plain"] / times["cached"]))
    return {
        "batch": len(output.lengths_B),
        "joint": joint,
        "steps": steps,
        "hypotheses_equal": True,
        "median_s": {
            k: round(float(np.median(v)), 4) for k, v in times.items()
        },
        "ratio_median": round(ratio, 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    cells = [
        [
            row["batch"],
            "joint" if row["joint"] else "attention",
            *(f"{row['median_s'][name]:.2f}" for name in ("plain", "cached")),
            row["ratio_median"],
        ]
        for row in rows
    ]
    heading = ["batch", "", "SpeechBrain's s", "here s", "times faster"]
    return markdown(heading, cells)


def main() -> None:
    """Measure, store, print; 250 frames are 10 s, steps are tokens."""
    parser = parser_of(__doc__)
    add_numbers(parser, d_model=144, layers=4, d_ffn=1024, vocab=256)
    add_numbers(parser, frames=250, beam=10, steps=50, batches=[1, 8])
    add_numbers(parser, repeats=7)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    attention = build(arguments)
    options = SearchOptions(
        beam_size=arguments.beam,
        max_decode_ratio=(arguments.steps + 0.5) / arguments.frames,
    )
    rows = []
    for batch in arguments.batches:
        output = random_output(arguments, batch)
        for joint in (False, True):
            rows.append(
                measure(attention, output, options, joint, arguments.repeats)
            )
    sizes = {n: v for n, v in vars(arguments).items() if n != "results"}
    store(
        arguments.results / "decoder_steps.json",
        {"sizes": sizes, "rows": rows, "environment": describe()},
    )
    print(table(rows))


if __name__ == "__main__":
    main()
