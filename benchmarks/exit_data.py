"""Outputs of a trained model at all exits, kept in memory.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from numpy.typing import NDArray

from speechbrain_ee.data.batches import SPEAKER_KEY, make_datasets
from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.clusters import Clusters
from speechbrain_ee.exits.decoding import greedy_tokens
from speechbrain_ee.exits.ensemble.ensemble import ExitCombination
from speechbrain_ee.exits.ensemble.ensemble_fit import Batch
from speechbrain_ee.exits.scoring import edit_counts
from speechbrain_ee.training.systems import CTCEarlyExitBrain


@dataclass(frozen=True)
class ExitData:
    """Outputs of a set at all exits, with transcripts."""

    batches: tuple[Batch, ...]
    refs: tuple[str, ...]
    clusters: Clusters
    decode: Callable[[list[int]], str]

    def combined(self, combination: ExitCombination) -> list[Batch]:
        """The same batches after combining."""
        return [(combination.combine(o), *rest) for o, *rest in self.batches]

    def errors_NE(self, batches: Sequence[Batch]) -> NDArray[np.int64]:
        """Word errors of greedy decoding."""
        columns = []
        for place in range(len(batches[0][0])):
            hyps = [
                self.decode(tokens)
                for outputs, _, _ in batches
                for tokens in greedy_tokens(outputs[place])
            ]
            columns.append(edit_counts(self.refs, hyps).sum(axis=1))
        return np.stack(columns, axis=1)


def collect(
    folder: Path, overrides: str
) -> tuple[dict[str, ExitData], CostModel]:
    """Outputs of the development and test sets, and the model's costs.

    Arguments
    ---------
    folder : Path
        Output folder of train.py.
    overrides : str
        Keys of its hyperparams.yaml to override, as YAML.

    Returns
    -------
    sets : dict of str to ExitData
        ``dev`` and the test sets by name.
    cost : CostModel
        Of the model.
    """
    text = (folder / "hyperparams.yaml").read_text("utf-8")
    hparams = load_hyperpyyaml(text, overrides)
    tokenizer = make_tokenizer(hparams)
    datasets = make_datasets(hparams, tokenizer)
    brain = CTCEarlyExitBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={"device": "cpu"},
        checkpointer=hparams["checkpointer"],
        tokenizer=tokenizer,
    )
    brain.on_evaluate_start(min_key="WER")
    brain.modules.eval()
    sets = {}
    for name, dataset in {"dev": datasets.valid, **datasets.tests}.items():
        batches, refs, ids, speakers = [], [], [], []
        stage, options = sb.Stage.TEST, hparams["test_dataloader_opts"]
        for batch in brain.make_dataloader(dataset, stage=stage, **options):
            with torch.no_grad():
                outputs = brain.compute_forward(batch, stage)
            tokens_BS, lengths_B = batch.tokens
            counts_B = (lengths_B * tokens_BS.shape[1]).round().long()
            batches.append((outputs, tokens_BS, counts_B))
            refs += batch.wrd
            ids += batch.id
            unknown = [""] * len(batch.id)
            speakers += getattr(batch, SPEAKER_KEY, unknown)
        clusters = Clusters.of([name or None for name in speakers], ids)
        sets[name] = ExitData(
            tuple(batches), tuple(refs), clusters, brain.decode
        )
    return sets, CostModel(hparams["modules"]["model"])
