"""After training: every test set once, at full depth, into an exit trace.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.evaluation.learn import SELECTOR_FILE
from speechbrain_ee.evaluation.recorder import TraceRecorder
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.exits.selector.selection import Selection
from speechbrain_ee.exits.selector.selector_file import write_selector
from speechbrain_ee.exits.trace import (
    MACS_REFERENCE_S,
    Trace,
    TraceHeader,
)
from speechbrain_ee.exits.trace_io import write_trace

logger = logging.getLogger(__name__)


class ExitEvaluation:
    """The part of a Brain that tests; mixed into
    :class:`speechbrain_ee.training.brain.EarlyExitBrain`.
    """

    selection: Selection | None = None
    policies: tuple[ExitPolicy, ...] = ()

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Load the average of the best checkpoints."""
        if self.checkpointer is None:
            return
        checkpoints = self.checkpointer.find_checkpoints(
            max_key=max_key,
            min_key=min_key,
            max_num_checkpoints=self.hparams.average_checkpoints,
        )
        if not checkpoints:
            logger.warning("No checkpoint found: testing untrained weights.")
            return
        weights = sb.utils.checkpoints.average_checkpoints(
            checkpoints, recoverable_name="model"
        )
        try:
            self._unwrapped_model().load_state_dict(weights, strict=True)
        except RuntimeError as error:
            self._explain_mismatch(error)

    def learn_selection(
        self,
        name: str,
        dev_set: Any,
        loader_options: dict[str, Any],
        texts: Sequence[str],
    ) -> None:
        """Learn from a development set when an utterance may stop.

        Writes ``traces/<name>.jsonl.gz``, and into ``save_folder``
        ``exit_selector.json.gz`` and a policy for ``exit_budget`` by each of
        two methods, ``exit_policy.<method>.yaml``. From then on
        :meth:`evaluate_exits` records the learned scores, too.

        Arguments
        ---------
        name : str
            Name of the development set.
        dev_set : DynamicItemDataset
            Data that the model was not trained on.
        loader_options : dict
            Arguments of its loader.
        texts : sequence of str
            Training transcripts.
        """
        if len(self.exit_layers) < 2:
            return
        trace = self._decode_set(name, dev_set, loader_options)
        try:
            self.selection, trace = Selection.fit(
                trace, texts, self.hparams.seed
            )
            self.policies = self._calibrated(trace)
        except InputError as error:
            # the test sets are worth their tables without it
            logger.warning("Exit selection was not learned: %s", error)
        self._write_set(name, trace)
        if self.selection is not None and if_main_process():
            folder = Path(self.hparams.save_folder)
            write_selector(folder / SELECTOR_FILE, self.selection.selector)
            for policy in self.policies:
                path = folder / f"exit_policy.{policy.method}.yaml"
                write_policy(path, policy)

    def _calibrated(self, trace: Trace) -> tuple[ExitPolicy, ...]:
        budget = self.hparams.exit_budget
        if budget is None:
            return ()
        return tuple(
            replace(
                calibrate_trace(trace, "learned", budget, method),
                selector=SELECTOR_FILE,
            )
            for method in ("ltt", "naive")
        )

    def selection_facts(self) -> dict[str, str]:
        """What a report should say about the learned selector.

        Returns
        -------
        dict of str to str
            Empty if none was learned.
        """
        if self.selection is None:
            return {}
        shares = self.selection.selector.explain().items()
        text = ", ".join(f"{name} {100 * s:.0f} %" for name, s in shares)
        return {
            "Evidence that the learned selector's predictions rest on": text
        }

    def evaluate_exits(
        self, name: str, test_set: Any, loader_options: dict[str, Any]
    ) -> Trace:
        """Decode a test set once at full depth and write its exit trace.

        Writes ``traces/<name>.jsonl.gz`` and ``wer_<name>.txt`` (SpeechBrain's
        alignment of the last exit) into ``output_folder``.

        Arguments
        ---------
        name : str
            Name of the test set.
        test_set : DynamicItemDataset
            The test set.
        loader_options : dict
            Arguments of its loader.

        Returns
        -------
        Trace
            One record per utterance and exit.
        """
        trace = self._decode_set(name, test_set, loader_options)
        if self.selection is not None:
            trace = self.selection.annotate(trace)
        self._write_set(name, trace)
        return trace

    def _decode_set(
        self, name: str, test_set: Any, loader_options: dict[str, Any]
    ) -> Trace:
        model = self._unwrapped_model()
        cost = CostModel(model)
        self.recorder = TraceRecorder(
            name, self.decode, cost.macs, self.hparams.sample_rate
        )
        self.evaluate(
            test_set, min_key="WER", test_loader_kwargs=dict(loader_options)
        )
        reference_samples = round(MACS_REFERENCE_S * self.hparams.sample_rate)
        header = TraceHeader(
            name=self.hparams.system_name,
            decoding="greedy",
            exit_layers=self.exit_layers,
            macs=cost.macs(reference_samples),
            parameters=cost.parameters(),
            vocab_size=model.heads.vocab_size,
            frames_per_s=cost.frames(reference_samples) / MACS_REFERENCE_S,
        )
        source = str(self._trace_path(name))
        return Trace(header, tuple(self.recorder.records), source)

    def _write_set(self, name: str, trace: Trace) -> None:
        if if_main_process():
            write_trace(self._trace_path(name), trace.header, trace.records)
            folder = Path(self.hparams.output_folder)
            self._write_alignments(folder / f"wer_{name}.txt")

    def _trace_path(self, name: str) -> Path:
        folder = Path(self.hparams.output_folder)
        return folder / "traces" / f"{name}.jsonl.gz"

    def _write_alignments(self, path: Path) -> None:
        stats = sb.utils.metric_stats.ErrorRateStats()
        records = self.recorder.records
        stats.append(
            [record.id for record in records],
            [record.exits[-1].hyp.split() for record in records],
            [record.ref.split() for record in records],
        )
        with open(path, "w", encoding="utf-8") as file:
            stats.write_stats(file)
