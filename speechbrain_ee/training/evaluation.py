"""After training: every test set once, at full depth, into an exit trace.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.evaluation.calibrate import SELECTOR_FILE, shipped_policies
from speechbrain_ee.evaluation.cost import CostModel, DecodingCost
from speechbrain_ee.evaluation.recorder import Recorded, TraceRecorder
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.decoding import (
    GREEDY,
    Decoding,
    SearchOptions,
    check_decodings,
)
from speechbrain_ee.exits.selector.selector import Selection
from speechbrain_ee.exits.selector.selector_file import write_selector
from speechbrain_ee.exits.trace import (
    MACS_REFERENCE_S,
    Trace,
    TraceHeader,
    with_storable_evidence,
)
from speechbrain_ee.exits.trace_file import write_trace
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import write_policies
from speechbrain_ee.training.distributed import all_or_none

logger = logging.getLogger(__name__)

LEARNED = ("plausibility", "unseen_words", "learned", "combination")


class Evaluator:
    """Tests what a Brain has trained.

    Three hyper-parameters may be given: ``decodings``, of which the first is
    what exits are selected for (by default CTC's greedy path alone);
    ``decoded_exits``, the exits that are looked at, counted from 1 (null:
    all that are trained, see ``active_exits`` of a
    :class:`~speechbrain_ee.training.regimes.Regime`); ``search``, the
    :class:`~speechbrain_ee.exits.decoding.SearchOptions`.
    """

    def __init__(
        self, brain: sb.Brain, model: EarlyExitModel, active_exits: int
    ):
        self.brain, self.model, self.hparams = brain, model, brain.hparams
        self.selection: Selection | None = None
        self.unlearned: Mapping[str, str] = {}  # evidence, and why not
        self.policies: Mapping[str, ExitPolicy] = {}
        self.dev_trace: Trace | None = None
        self.recorder: TraceRecorder | None = None
        # By test set, the traces of all decodings.
        self.decoded: dict[str, tuple[Trace, ...]] = {}
        # Evidence that was said to be left out, and why.
        self.told: set[tuple[str, str]] = set()
        self.error_unit = getattr(self.hparams, "error_unit", "word")
        decodings = getattr(self.hparams, "decodings", (GREEDY,))
        check_decodings(decodings, model)
        self.decodings = tuple(decodings)
        exits = getattr(self.hparams, "decoded_exits", None)
        last = len(model.exit_layers)
        listed = list(exits) if isinstance(exits, list | tuple) else []
        right = [k for k in range(1, last + 1) if k in listed]
        if exits is not None and (not listed or listed != right):
            raise InputError(
                f"decoded_exits: {exits!r} must be a list of increasing exits "
                f"between 1 and {last}, for example [{last}]; null means all."
            )
        self.decoded_exits = tuple(listed or range(1, active_exits + 1))

    def learn(
        self,
        name: str,
        dev_set: Any,
        loader_options: dict[str, Any],
        texts: Sequence[str],
    ) -> None:
        """Learn from a development set when an utterance may stop.

        Writes ``traces/<name>.jsonl.gz``, and into ``save_folder``
        ``exit_selector.json.gz`` and the policies for ``exit_budget``,
        ``policies/<criterion>.<method>.yaml``: those that the report measures
        and inference folders ship. From then on :meth:`evaluate`
        records the learned scores, too.
        """
        if len(self.decoded_exits) < 2:
            return
        decodings = self.decodings[:1]
        (trace,) = self._decode_set(name, dev_set, loader_options, decodings)
        try:
            self.selection, trace = Selection.fit(
                trace, texts, self.hparams.seed
            )
        except InputError as error:
            # the test sets are worth their tables without it
            logger.warning("Exit selection was not learned: %s", error)
            if self.selection is None:
                why = str(error).removeprefix(f"{trace.source}: ")
                self.unlearned = dict.fromkeys(LEARNED, one_line(why))
                self.told |= self.unlearned.items()
                left_out = {**trace.header.left_out, **self.unlearned}
                header = replace(trace.header, left_out=left_out)
                trace = replace(trace, header=header)
        self.dev_trace = trace
        self.policies = shipped_policies(
            trace, self.hparams.exit_budget, selector=f"../{SELECTOR_FILE}"
        )
        with all_or_none("writing what was learned of exit selection"):
            self._write_set(name, trace)
            if if_main_process():
                folder = Path(self.hparams.save_folder)
                write_policies(folder, self.policies)
                if self.selection is not None:
                    selector = self.selection.selector
                    write_selector(folder / SELECTOR_FILE, selector)

    def selection_facts(self) -> dict[str, str]:
        """What a report should say about the learned selector."""
        if self.selection is None:
            return {}
        shares = self.selection.selector.explain().items()
        text = ", ".join(f"{name} {100 * s:.0f} %" for name, s in shares)
        return {
            "Evidence that the learned selector's predictions rest on": text
        }

    def evaluate(
        self, name: str, test_set: Any, loader_options: dict[str, Any]
    ) -> Trace:
        """Decode a test set once at full depth and write its exit trace.

        Writes ``traces/<name>.jsonl.gz`` and ``wer_<name>.txt`` (SpeechBrain's
        alignment of the last exit) into ``output_folder``, for the first
        decoding; of every further one ``traces/<name>.<decoding>.jsonl.gz``.
        """
        main, *others = self._decode_set(name, test_set, loader_options)
        if self.selection is not None:
            main = self.selection.annotate(main)
        self.decoded[name] = (main, *others)
        with all_or_none(f"writing the traces of {name}"):
            self._write_set(name, main, *others)
        return main

    def _decode_set(
        self,
        name: str,
        test_set: Any,
        loader_options: dict[str, Any],
        decodings: Sequence[str] | None = None,
    ) -> list[Trace]:
        """A trace per decoding, from one pass over the set."""
        decodings = decodings or self.decodings
        cost = CostModel(self.model, self.decoded_exits)
        self.recorder = TraceRecorder(
            name,
            self.brain.decode,
            cost.macs,
            self.hparams.sample_rate,
            {each: self._decoder(each) for each in decodings},
            self.decoded_exits,
            self.error_unit,
        )
        self._record(name, test_set, loader_options)
        traces = []
        for decoding, measured in self.recorder.by_decoding.items():
            infix = "" if decoding == decodings[0] else f".{decoding}"
            folder = Path(self.hparams.output_folder) / "traces"
            path = folder / f"{name}{infix}.jsonl.gz"
            records, unfit = with_storable_evidence(measured)
            left_out = self.recorder.left_out | self.unlearned | unfit
            header = self._header(cost, decoding, left_out)
            traces.append(Trace(header, records, str(path)))
        if if_main_process():
            self._warn(name, traces)
        return traces

    def _record(
        self, name: str, test_set: Any, loader_options: Mapping[str, Any]
    ) -> None:
        """Record a test set; every process then has the records of all.

        The processes share the batches that one alone would make, so that
        the records are equal to its own, bit for bit and in its order.
        """
        sharder = self.brain.sharder
        sharder.shares.pop(sb.Stage.TEST, None)
        with all_or_none(f"decoding {name}"):
            self.brain.evaluate(
                test_set, min_key="WER", test_loader_kwargs=dict(loader_options)
            )
        sharder.joined_records(self.recorder)

    def _decoder(self, name: str) -> Recorded | None:
        if name == GREEDY:
            return None
        options = getattr(self.hparams, "search", None) or SearchOptions()
        decoding = Decoding(name, self.model, options)
        costs = DecodingCost(self.model, options)
        return Recorded(
            decoding, partial(costs.macs, name), decoding.uses_attention
        )

    def _header(
        self, cost: CostModel, decoding: str, left_out: Mapping[str, str]
    ) -> TraceHeader:
        samples = round(MACS_REFERENCE_S * self.hparams.sample_rate)
        return TraceHeader(
            name=self.hparams.system_name,
            decoding="greedy" if decoding == GREEDY else decoding,
            exit_layers=tuple(
                self.model.exit_layers[k - 1] for k in self.decoded_exits
            ),
            macs=cost.macs(samples),
            parameters=cost.parameters(),
            vocab_size=self.model.heads.vocab_size,
            frames_per_s=cost.frames(samples) / MACS_REFERENCE_S,
            error_unit=self.error_unit,
            width=self.recorder.width,
            left_out=left_out,
        )

    def _warn(self, name: str, traces: Sequence[Trace]) -> None:
        """Say what is wrong with a set, and once which evidence is not there."""
        utterances = len(self.recorder.records)
        for decoding, cut in self.recorder.cut.items():
            if cut:
                logger.warning(
                    "%s, %s: %d of %d hypotheses did not end and were cut at "
                    "`max_decode_ratio` tokens per frame.",
                    name,
                    decoding,
                    cut,
                    utterances * len(self.decoded_exits),
                )
        for trace in traces:
            for each in trace.header.left_out.items() - self.told:
                self.told.add(each)
                logger.warning("Evidence %r is left out of traces: %s", *each)
        broken = self.recorder.broken.items()
        if broken:
            logger.warning(
                "%s: for %d of %d utterances the model gives NaN; what "
                "these exits recognise counts as nothing: %s",
                name,
                len(broken),
                utterances,
                ", ".join(f"{u} (first at exit {k})" for u, k in broken),
            )

    def _write_set(self, name: str, *traces: Trace) -> None:
        if if_main_process():
            for trace in traces:
                write_trace(trace.source, trace.header, trace.records)
            self._write_alignments(name)

    def _write_alignments(self, name: str) -> None:
        stats = sb.utils.metric_stats.ErrorRateStats()
        records = self.recorder.records
        units = str.split if self.error_unit == "word" else list
        stats.append(
            [record.id for record in records],
            [units(record.exits[-1].hyp) for record in records],
            [units(record.ref) for record in records],
        )
        path = Path(self.hparams.output_folder) / f"wer_{name}.txt"
        with open(path, "w", encoding="utf-8") as file:
            stats.write_stats(file)
