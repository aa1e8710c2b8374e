"""After training: every test set once, at full depth, into an exit trace.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from pathlib import Path
from typing import Any

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process

from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.evaluation.recorder import TraceRecorder
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
        folder = Path(self.hparams.output_folder)
        path = folder / "traces" / f"{name}.jsonl.gz"
        if if_main_process():
            path.parent.mkdir(exist_ok=True)
            write_trace(path, header, self.recorder.records)
            self._write_alignments(folder / f"wer_{name}.txt")
        return Trace(header, tuple(self.recorder.records), source=str(path))

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
