"""Turn a model's outputs on a test set into the records of an exit trace.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from speechbrain_ee.exits.criteria.registry import measure_all, not_measured
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.decoding import NBest, greedy_tokens
from speechbrain_ee.exits.scoring import edit_counts
from speechbrain_ee.exits.trace import ExitRecord, UtteranceRecord
from speechbrain_ee.exits.trace_file import utterance_row
from speechbrain_ee.models.heads import ExitOutput

_NEVER = -1e4  # logarithm of a probability of 0, finite


@dataclass(frozen=True)
class Recorded:
    """What a decoder beyond the greedy path makes of the exits."""

    # exit (from 1) and its output to one NBest per utterance
    decode: Callable[[int, ExitOutput], Sequence[NBest]]
    # exit, encoder frames and NBest to the MACs of finding it
    macs: Callable[[int, int, NBest], int]
    has_evidence: bool = True  # whether criteria may read what it found


@dataclass(eq=False)
class TraceRecorder:
    """Collect one record per utterance and decoding, batch by batch."""

    set_name: str
    decode: Callable[[list[int]], str]
    macs: Callable[[int], Sequence[int]] | None = None
    sample_rate: int = 16000
    decoders: Mapping[str, Recorded | None] | None = None
    exits: Sequence[int] | None = None
    error_unit: str = "word"

    def __post_init__(self) -> None:
        self.decoders = dict(self.decoders or {"ctc_greedy": None})
        self.by_decoding: dict[str, list[UtteranceRecord]] = {
            name: [] for name in self.decoders
        }
        self.batch_sizes: list[int] = []
        self.cut: dict[str, int] = dict.fromkeys(self.decoders, 0)
        self.broken: dict[str, int] = {}  # utterance -> first exit with NaN
        self.left_out: dict[str, str] = {}
        self.width: int | None = None  # of hidden states

    @property
    def records(self) -> list[UtteranceRecord]:
        """Those of the first decoding."""
        return next(iter(self.by_decoding.values()))

    def append(
        self,
        ids: Sequence[str],
        refs: Sequence[str],
        samples: Sequence[int],
        outputs: Sequence[ExitOutput],
        speakers: Sequence[str] | None = None,
    ) -> None:
        """Record a batch."""
        exits = self.exits or range(1, len(outputs) + 1)
        # by decoding, exit and row: what an ExitRecord is made of
        found: dict[str, list[list[dict[str, Any]]]] = {
            name: [] for name in self.decoders
        }
        views: list[ExitView] = []
        for exit in exits:
            output, broken_B = _without_nan(outputs[exit - 1])
            for row in broken_B.nonzero()[:, 0].tolist():
                self.broken.setdefault(ids[row], exit)
            view = ExitView(output, views)
            evidence = _rows(measure_all(view))
            greedy = [self.decode(tokens) for tokens in greedy_tokens(output)]
            views.append(view)
            for name, decoder in self.decoders.items():
                cells = [
                    {"layer": output.layer, "hyp": hyp, "evidence": values}
                    for hyp, values in zip(greedy, evidence, strict=True)
                ]
                if decoder is not None:
                    self._decode(name, decoder, exit, view, cells)
                found[name].append(cells)
        self.left_out = not_measured(views[-1])
        if output.hidden_BTD is not None:
            self.width = output.hidden_BTD.shape[-1]
        people = [name or None for name in speakers or [""] * len(ids)]
        for name, records in self.by_decoding.items():
            by_row = zip(*found[name], strict=True)
            columns = ids, refs, samples, people, by_row
            records += [
                self._record(*row) for row in zip(*columns, strict=True)
            ]
        self.batch_sizes.append(len(ids))

    def plain_batches(self) -> list[dict[str, list[dict[str, Any]]]]:
        """What was recorded, as values that JSON can hold."""
        ends = list(accumulate(self.batch_sizes))
        return [
            {
                name: [utterance_row(each) for each in records[start:end]]
                for name, records in self.by_decoding.items()
            }
            for start, end in zip([0, *ends], ends)
        ]

    def replace(
        self, batches: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]]
    ) -> None:
        """Put other batches in place of what was recorded."""
        for name in self.by_decoding:
            self.by_decoding[name] = [
                utterance_record(row)
                for batch in batches
                for row in batch[name]
            ]
        main = next(iter(self.by_decoding))
        self.batch_sizes = [len(batch[main]) for batch in batches]

    def _decode(
        self,
        name: str,
        decoder: Recorded,
        exit: int,
        view: ExitView,
        cells: Sequence[dict[str, Any]],
    ) -> None:
        """Put what a decoder found in place of the greedy path."""
        found = decoder.decode(exit, view.output)
        if decoder.has_evidence:
            measured = measure_all(
                ExitView(view.output, view.earlier, found), decoded=True
            )
            for cell, values in zip(cells, _rows(measured)):
                cell["evidence"] = {**cell["evidence"], **values}
        frames = view.output.lengths_B.tolist()
        for cell, nbest, count in zip(cells, found, frames):
            cell["greedy"] = cell["hyp"]
            cell["hyp"] = self.decode(list(nbest.tokens))
            cell["decoding_macs"] = decoder.macs(exit, count, nbest)
            self.cut[name] += not nbest.best.complete

    def _record(
        self,
        id: str,
        ref: str,
        samples: int,
        speaker: str | None,
        cells: Sequence[dict[str, Any]],
    ) -> UtteranceRecord:
        spent = self.macs(samples) if self.macs else [None] * len(cells)
        exits = []
        for cell, macs in zip(cells, spent, strict=True):
            if macs is None:
                cell.pop("decoding_macs", None)
            else:
                macs += cell.get("decoding_macs", 0)
            edits = edit_counts([ref], [cell["hyp"]], self.error_unit)
            errors = int(edits.sum())
            exits.append(ExitRecord(**cell, errors=errors, macs=macs))
        duration_s = samples / self.sample_rate
        return UtteranceRecord(
            id, self.set_name, ref, tuple(exits), duration_s, speaker
        )


def _without_nan(output: ExitOutput) -> tuple[ExitOutput, Tensor]:
    """An exit that says nothing of utterances for which its output is NaN.

    Blanks alone are no evidence of readiness, in all criteria: as live, where
    NaN never stops. Returns also which utterances these are, shape (B,).
    """
    log_probs_BTV, lengths_B = output.log_probs_BTV, output.lengths_B
    frames_T = torch.arange(log_probs_BTV.shape[1], device=lengths_B.device)
    counts_BT = (frames_T < lengths_B[:, None]).to(log_probs_BTV.device)
    broken_B = (log_probs_BTV.isnan().any(-1) & counts_BT).any(1)
    if not broken_B.any():
        return output, broken_B
    blanks_V = torch.full_like(log_probs_BTV[0, 0], _NEVER)
    blanks_V[output.blank_index] = 0.0
    at_B11, hidden_BTD = broken_B[:, None, None], output.hidden_BTD
    if hidden_BTD is not None:
        hidden_BTD = hidden_BTD.masked_fill(at_B11, 0.0)
    log_probs_BTV = torch.where(at_B11, blanks_V, log_probs_BTV)
    return replace(
        output, log_probs_BTV=log_probs_BTV, hidden_BTD=hidden_BTD
    ), broken_B


def _rows(measured: Mapping[str, Any]) -> list[dict[str, float]]:
    """Evidence of a batch by row."""
    columns = {name: raw.tolist() for name, raw in measured.items()}
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def utterance_record(row: Mapping[str, Any]) -> UtteranceRecord:
    """An utterance from what ``utterance_row`` made of it."""
    exits = tuple(ExitRecord(**each) for each in row["exits"])
    return UtteranceRecord(**{**row, "exits": exits})
