#!/usr/bin/env python3
"""What would a training step of a YAML need of a GPU, and how long a run?

Estimates, not measurements: no GPU and no weights are needed. The model is
built of fake tensors, which have a shape and a device but no memory, on the
device `cuda`; one training batch of the YAML's size goes through its forward
pass. What is counted:

* parameters, gradients and AdamW's two moments, 4 bytes each;
* activations: the storages that autograd keeps for the backward pass, each
  once (`torch.autograd.graph.saved_tensors_hooks`), or what is alive at once
  in the forward pass, if that is more (frozen convolutions keep nothing);
* operations of matrix products and convolutions: the forward pass once, and
  as much again for each of its operands that needs a gradient.

What is not: temporary memory of the backward pass and of CUDA's libraries,
the CUDA context, unused pieces in the allocator. `total_gib` adds a stated
margin for them. Attention is taken to run in PyTorch's memory-efficient
kernel.

> python benchmarks/training_memory.py
> python benchmarks/training_memory.py wav2vec2_ctc --overrides "head: linear"

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from environment import describe, store
from training_step import forward_step

from speechbrain_ee.training.options import load_options

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = (
    "wav2vec2_ctc",
    "hubert_ctc",
    "wavlm_ctc",
    "hubert_large_frozen",
    "conformer_ctc",
    "conformer_aed",
)
RATE = 16000
GIB = 2**30
# Utterances of LibriSpeech's training sets last 12 s on average, most of them
# 12 to 16 s, the longest 24.5 s; speed perturbation makes them 5 % longer.
LENGTHS_S = {"typical": 14.0, "longest": 24.5}
SLOWEST = 1 / 0.95
# Tokens per second of read English, by the size of the vocabulary.
TOKENS_PER_S = {32: 15, 256: 7, 5000: 4}
MARGIN = 1.1  # backward temporaries, fragments of the allocator
CONTEXT_GIB = 1.0  # CUDA context, cuDNN, cuBLAS
# Sustained share of an A100's dense peak, fp32 data through TF32 units.
SHARE, PEAK_TFLOPS = 0.3, {"fp32": 156, "bf16": 312}
HOURS = {"train-clean-100": 100.6, "train-clean-360": 363.6}
HOURS["train-other-500"] = 496.7

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}
# Sizes of the models that the YAMLs name: what differs from the defaults of
# transformers' configurations, which are those of the base models.
HUB = {
    "facebook/wav2vec2-base": ("Wav2Vec2Config", {}),
    "facebook/hubert-base-ls960": ("HubertConfig", {}),
    "microsoft/wavlm-base": ("WavLMConfig", {}),
    "facebook/hubert-large-ls960-ft": ("HubertConfig", LARGE),
}
# Cheaper ways to fine-tune, by the keys that they change.
VARIANTS = {
    "wav2vec2_ctc, half the batch": "dynamic_batching: {max_batch_length: 100}",
    "wav2vec2_ctc, frozen backbone": "freeze_backbone: True",
}
# What is tried of each system: the length of its utterances, the precision.
TRIED = (("typical", "bf16"), ("longest", "bf16"), ("longest", "fp32"))


def write_config(source: str, folder: Path) -> Path:
    """A folder with the sizes of a model of the hub, without weights."""
    import transformers

    name, options = HUB[source]
    getattr(transformers, name)(**options).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def build(system: str, folder: Path, overrides: str = "") -> dict[str, Any]:
    """Objects of a YAML, tensors fake; call it under FakeTensorMode."""
    path = ROOT / "hparams" / f"{system}.yaml"
    given = f"data_folder: none\noutput_folder: {folder}\n{overrides}\n"
    named = re.search(r"(?m)^source: (\S+)", path.read_text("utf-8"))
    if named is not None and named[1] in HUB:
        source = write_config(named[1], folder / "model")
        given += f"source: {source}\npretrained: False\n"
    hparams = load_options(str(path), given)
    model = hparams["model"].train()
    # Draws numbers that depend on values, and keeps next to nothing.
    model.encoder.feature_augment = None
    if hparams.get("regime") is not None:
        hparams["regime"].prepare(model)
    return hparams


def estimate(system: str, overrides: str = "") -> dict[str, Any]:
    """What a system's training needs."""
    with tempfile.TemporaryDirectory() as folder:
        hparams = build(system, Path(folder), overrides)
    model = hparams["model"]
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    every = sum(count for count, _ in counts)
    trained = sum(count for count, learns in counts if learns)
    # A parameter; its gradient and two moments.
    static = (4 * every + 12 * trained) / GIB
    limit = hparams["dynamic_batching"]["max_batch_length"]
    rows = {}
    for length, precision in TRIED:
        rows[f"{length}.{precision}"] = memory(
            hparams, length, precision, limit, static
        )
    hours = sum(HOURS[split] for split in hparams["train_splits"])
    epochs = hparams["number_of_epochs"]
    flops = rows["typical.bf16"]["flops_per_audio_hour"] * hours * epochs
    return {
        "overrides": overrides,
        "parameters": every,
        "trained_parameters": trained,
        "static_gib": round(static, 2),
        "batch_s": limit,
        "steps": rows,
        "audio_hours": round(hours, 1),
        "epochs": epochs,
        "gpu_hours": {
            name: round(flops / (SHARE * peak * 1e12) / 3600, 1)
            for name, peak in PEAK_TFLOPS.items()
        },
    }


def memory(
    hparams: dict[str, Any],
    length: str,
    precision: str,
    limit: float,
    static: float,
) -> dict[str, Any]:
    """Of one batch: what is kept, and what that makes with all the rest."""
    seconds = LENGTHS_S[length]
    batch = max(1, int(limit / seconds))
    slowed = seconds * (SLOWEST if length == "longest" else 1.0)
    tokens = round(seconds * TOKENS_PER_S[hparams["output_neurons"]])
    step = forward_step(
        hparams["model"], batch, round(slowed * RATE), tokens, precision
    )
    alive = max(step.saved_bytes, step.peak_bytes) / GIB
    per_hour = step.step_flops / (batch * slowed) * 3600
    return {
        "utterances": batch,
        "seconds": round(slowed, 1),
        "saved_gib": round(step.saved_bytes / GIB, 2),
        "forward_peak_gib": round(step.peak_bytes / GIB, 2),
        "total_gib": round(static + MARGIN * alive + CONTEXT_GIB, 1),
        "step_over_forward": round(step.step_flops / step.forward_flops, 2),
        "flops_per_audio_hour": float(f"{per_hour:.4g}"),
    }


def main() -> None:
    """Estimate, store after every system, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", help="YAMLs; none: all, variants")
    parser.add_argument("--overrides", default="", help="keys, as YAML")
    parser.add_argument(
        "--table", action="store_true", help="print what is stored, no more"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results"
    )
    arguments = parser.parse_args()
    path = arguments.results / "training_memory.json"
    if arguments.table:
        print(table(json.loads(path.read_text("utf-8"))["systems"]))
        return
    every = dict.fromkeys(SYSTEMS, "") | VARIANTS
    given = dict.fromkeys(arguments.systems, arguments.overrides)
    found: dict[str, Any] = {}
    for label, overrides in (given or every).items():
        row = found[label] = estimate(label.partition(",")[0], overrides)
        totals = {key: s["total_gib"] for key, s in row["steps"].items()}
        print(f"{label}: GiB {totals}, hours {row['gpu_hours']}", flush=True)
        if not given:
            store(path, summary(found))


def table(systems: dict[str, Any]) -> str:
    """A Markdown table of stored estimates."""
    lines = [
        "| system | parameters, trained, M | GiB, bf16 | GiB, fp32 "
        "| hours, bf16 | hours, fp32 |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in systems.items():
        millions = [
            f"{row[key] / 1e6:.1f}"
            for key in ("parameters", "trained_parameters")
        ]
        sizes = [
            f"{row['steps'][f'longest.{each}']['total_gib']:.0f}"
            for each in ("bf16", "fp32")
        ]
        hours = [f"{row['gpu_hours'][each]:.0f}" for each in ("bf16", "fp32")]
        cells = [f"`{name}`", ", ".join(millions), *sizes, *hours]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(systems: dict[str, Any]) -> dict[str, Any]:
    """The estimates with what they assume."""
    return {
        "kind": "estimates, not measured on a GPU",
        "method": "forward pass on fake CUDA tensors (FakeTensorMode)",
        "assumed": {
            "margin_on_activations": MARGIN,
            "context_gib": CONTEXT_GIB,
            "share_of_peak": SHARE,
            "peak_tflops": PEAK_TFLOPS,
            "lengths_s": LENGTHS_S,
            "tokens_per_s": TOKENS_PER_S,
        },
        "systems": systems,
        "environment": describe(),
    }


if __name__ == "__main__":
    main()
