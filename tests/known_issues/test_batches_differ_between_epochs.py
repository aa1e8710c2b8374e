"""Dynamic batches are drawn anew in every epoch.

Trap avoided: SpeechBrain tells only the samplers that it made itself which
epoch it is. A batch sampler given in the loader's options keeps its first
epoch: every epoch has the same batches, and a resumed run has others.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import speechbrain as sb
from speechbrain.dataio.sampler import DynamicBatchSampler

from speechbrain_ee.data.batches import train_loader_options
from speechbrain_ee.training.systems import CTCEarlyExitBrain
from tests.helpers import tiny_brain, tone_dataset

BATCHING = {
    "max_batch_length": 2.5,
    "num_buckets": 2,
    "shuffle": True,
    "batch_ordering": "random",
}


class Watched(CTCEarlyExitBrain):
    """Notes the utterances of every training batch, by epoch."""

    def on_fit_batch_start(self, batch, should_step: bool) -> None:
        seen = self.__dict__.setdefault("seen", {})
        epoch = self.hparams.epoch_counter.current
        seen.setdefault(epoch, []).append(tuple(batch.id))
        super().on_fit_batch_start(batch, should_step)


class SpeechBrainsFit(Watched):
    """The same Brain with SpeechBrain's own ``fit``."""

    def fit(self, *arguments, **options) -> None:
        sb.Brain.fit(self, *arguments, **options)


def run(
    folder: Path,
    brain_class: type[CTCEarlyExitBrain],
    epochs: int,
    dynamic: bool = True,
) -> tuple[Watched, DynamicBatchSampler | None]:
    """Train on tones, with the loader's options as the recipe makes them."""
    data = tone_dataset(8)
    options = train_loader_options(
        {
            "train_dataloader_opts": {"batch_size": 2, "shuffle": True},
            "dynamic_batching": BATCHING if dynamic else None,
            "seed": 5,
        },
        data,
    )
    brain = tiny_brain(folder, epochs=epochs, brain_class=brain_class)
    brain.fit(
        brain.hparams.epoch_counter,
        data,
        data,
        train_loader_kwargs=options,
        valid_loader_kwargs={"batch_size": 8},
    )
    return brain, options.get("batch_sampler")


def everyone(batches: list[tuple[str, ...]]) -> list[str]:
    """All utterances of an epoch, sorted."""
    return sorted(id for batch in batches for id in batch)


def test_speechbrain_repeats_the_first_epoch(tmp_path):
    """The trap itself: when this fails, SpeechBrain has closed it."""
    brain, sampler = run(tmp_path, SpeechBrainsFit, epochs=3)
    assert sampler._epoch == 0
    # The sampler permutes the batches it has, but never makes new ones.
    kinds = {
        frozenset(map(frozenset, batches)) for batches in brain.seen.values()
    }
    assert len(kinds) == 1


@pytest.mark.parametrize("dynamic", [True, False])
def test_batches_change_with_the_epoch(tmp_path, dynamic):
    """Every utterance in every epoch, in other batches each time."""
    brain, _ = run(tmp_path, Watched, epochs=3, dynamic=dynamic)
    assert list(brain.seen) == [1, 2, 3]
    assert len({tuple(batches) for batches in brain.seen.values()}) == 3
    kinds = {frozenset(map(frozenset, b)) for b in brain.seen.values()}
    assert len(kinds) == 3
    for batches in brain.seen.values():
        assert everyone(batches) == [f"utt{n}" for n in range(8)]


def test_resumed_run_has_the_batches_of_its_epoch(tmp_path):
    """Epoch 3 after a restart is epoch 3 of a run without one."""
    whole, _ = run(tmp_path / "whole", Watched, epochs=3)
    run(tmp_path / "parts", Watched, epochs=2)
    resumed, _ = run(tmp_path / "parts", Watched, epochs=3)
    assert list(resumed.seen) == [3]
    assert resumed.seen[3] == whole.seen[3]
