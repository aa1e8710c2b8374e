"""A program of two processes, and what it does, for the tests of both.

Every case is a function of the number of processes: the tests run it alone,
this program runs it as one of two, and both results should be the same.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from speechbrain.processing.features import InputNormalization
from torch import nn

from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.distillation import Distillation
from speechbrain_ee.training.regimes import Regime
from tests.helpers import shaken, tiny_brain, tiny_model, tone_dataset

BATCH = 4  # utterances of a step, of all processes
EVALUATED = ("traces/dev.jsonl.gz", "traces/test.jsonl.gz", "wer_test.txt")
BEAM = "traces/test.ctc_beam.jsonl.gz"
TIMEOUT = timedelta(minutes=10)


def model_of(**options: Any) -> EarlyExitModel:
    return shaken(tiny_model(**options), by=0.1)


def with_global_statistics() -> EarlyExitModel:
    model = model_of()
    model.encoder.features.normalize = InputNormalization(norm_type="global")
    return model


def pretrained(folder: Path) -> EarlyExitModel:
    from tests.models.ssl_models import ssl_model

    return ssl_model(folder.parent / "ssl")


def with_idle_part() -> EarlyExitModel:
    model = model_of()
    model.heads.idle = nn.Linear(2, 2)
    return model


# What the models are trained with; 8 utterances are two steps.
CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ctc": lambda _: {},
    "uneven": lambda _: {"utterances": 7},
    "aed": lambda _: {"model": model_of(attention="shared")},
    "ctc alone": lambda _: {
        "model": model_of(attention="shared"),
        "ctc_weight": 1,
    },
    "attention alone": lambda _: {
        "model": model_of(attention="shared"),
        "ctc_weight": 0,
    },
    "accumulated": lambda _: {"grad_accumulation_factor": 2},
    "left over": lambda _: {"grad_accumulation_factor": 3},
    "statistics": lambda _: {"model": with_global_statistics()},
    "soft": lambda _: {"distillation": Distillation("soft")},
    "low": lambda _: {
        "model": model_of(exit_layers=(1, 2, 4), attention="separate"),
        "regime": Regime(freeze_convolutions=False, active_exits=2),
    },
    "stages": lambda _: {
        "regime": Regime(heads_first_epochs=1, unfreeze_per_epoch=2),
        "epochs": 3,
    },
    "pretrained": lambda folder: {
        "model": pretrained(folder),
        "regime": Regime(heads_first_epochs=1),
        "epochs": 2,
    },
    "frozen": lambda _: {"regime": Regime(freeze_backbone=True)},
    "skipping": lambda _: {"model": model_of(layerdrop_prob=0.5)},
}


def trained(name: str, folder: Path, processes: int) -> dict[str, Any]:
    options = {"epochs": 1, "utterances": 8} | CASES[name](folder)
    data = tone_dataset(options.pop("utterances"), first=3)
    brain = brain_in(folder / name, **options)
    gradients: list[dict[str, torch.Tensor]] = []
    step = brain.optimizers_step

    def noted_step() -> None:
        named = brain._unwrapped_model().named_parameters()
        gradients.append(
            {n: p.grad.clone() for n, p in named if p.grad is not None}
        )
        step()

    brain.optimizers_step = noted_step
    fit(brain, data, processes)
    return {
        "gradients": gradients,
        "weights": brain._unwrapped_model().state_dict(),
        "logged": dict(brain.train_stats),
        "unused": bool(brain.find_unused_parameters),
        "heard": heard(brain._unwrapped_model()),
    }


def heard(model: EarlyExitModel) -> list[torch.Tensor]:
    normalise = getattr(model.encoder, "features", None)
    normalise = getattr(normalise, "normalize", None)
    if getattr(normalise, "norm_type", None) != "global":
        return []
    return [normalise.glob_mean, normalise.glob_std]


def brain_in(folder: Path, **options: Any) -> Any:
    (folder / "save").mkdir(parents=True, exist_ok=True)
    options = {"model": model_of()} | options
    return tiny_brain(
        folder,
        distributed_backend="gloo",
        save_folder=str(folder / "save"),
        **options,
    )


def fit(brain: Any, data: Any, processes: int) -> None:
    brain.fit(
        brain.hparams.epoch_counter,
        data,
        tone_dataset(5, seed=3, first=3),
        train_loader_kwargs={
            "batch_size": BATCH // processes,
            "shuffle": True,
        },
        valid_loader_kwargs={"batch_size": 2},
    )


def evaluated(folder: Path, processes: int) -> dict[str, Any]:
    brain = brain_in(
        folder / f"evaluated{processes}",
        model=model_of(attention="shared"),
        lr=0.0,
        decodings=["ctc_greedy", "ctc_beam"],
        exit_budget="wer=+10%",
    )
    logged: dict[str, Any] = {}
    log = brain.hparams.train_logger.log_stats

    def noted(**stats: Any) -> None:
        logged.update(stats["valid_stats"])
        log(**stats)

    brain.hparams.train_logger.log_stats = noted
    fit(brain, tone_dataset(4, first=3), processes)
    texts = [row["wrd"] for row in tone_dataset(8, first=3).data.values()]
    loader = {"batch_size": 4}
    dev = tone_dataset(30, seed=1, first=3)
    brain.learn_selection("dev", dev, loader, texts)
    test = tone_dataset(22, seed=2, first=3)
    trace = brain.evaluate_exits("test", test, loader)
    return {
        "logged": logged,
        "ids": list(trace.ids),
        "evidence": trace.evidence_names,
        "cut": brain.evaluator.recorder.cut,
    }


def failed(folder: Path) -> dict[str, str]:
    messages = {}
    brain = brain_in(folder / "failed", average_checkpoints=0)
    test = tone_dataset(6, first=3)
    del test.data["utt5"]["sig"]  # in the second batch
    try:
        brain.evaluate_exits("test", test, {"batch_size": 4})
    except Exception as error:
        messages["test"] = f"{type(error).__name__}: {error}"
    brain = brain_in(folder / "idle", model=with_idle_part())
    try:
        fit(brain, tone_dataset(8, first=3), 2)
    except Exception as error:
        messages["idle"] = f"{type(error).__name__}: {error}"
    return messages


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=TIMEOUT,
    )
    for name in CASES:
        result = trained(name, folder, processes=2)
        torch.save(result, folder / f"{name}.{rank}.pt")
    write(folder / f"evaluated.{rank}.json", evaluated(folder, processes=2))
    write(folder / f"failed.{rank}.json", failed(folder))
    torch.distributed.destroy_process_group()


def write(path: Path, result: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ["RANK"]))
