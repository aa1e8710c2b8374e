"""The measurements behind benchmarks/live.py, one function each.

Axes: N utterances, B utterances of a batch, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from environment import utterances_through

from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.bench import (
    LAST,
    Configuration,
    measure_in_turn,
    transcribed,
    with_ratios,
)
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.inference.recordings import Batch, Spoken, batches_of
from speechbrain_ee.inference.runner import TorchBatch, chosen_rows

MAC_TOLERANCE = 0.05
MOST_OVERHEAD = 0.02
LEAST_SAVING = 0.25
LEAST_SPEEDUP = 1.5
PROBED = ("entropy", "max_prob", "margin", "learned", "combination")
QUANTILES = (0.25, 0.6, 0.9)


@dataclass(frozen=True)
class Chosen:
    """What computing all exits and choosing afterwards gives."""

    text: str
    tokens: tuple[int, ...]
    exit: int
    layer: int
    macs: int = 0


def time_against_macs(
    asr: EarlyExitASR,
    policies: dict[str, LivePolicy],
    spoken: Sequence[Spoken],
    batch_sizes: Sequence[int],
    warmup: int,
    repeats: int,
) -> list[dict[str, Any]]:
    """(a) and (c): time over that of the last exit, beside the MACs'."""
    policies = {**policies, LAST: asr.policies.resolve(LAST)}
    tasks = {
        Configuration(name, size, 1, "torch"): partial(
            transcribed, asr.runner, batches_of(spoken, size), policy
        )
        for size in batch_sizes
        for name, policy in policies.items()
    }
    audio_s = sum(len(one.wav_S) for one in spoken) / asr.sample_rate
    measured = measure_in_turn(tasks, warmup, repeats, audio_s)
    rows = with_ratios([one.row(spoken) for one in measured])
    for row in rows:
        off = row["relative_time"] / row["relative_macs"] - 1
        row["time_over_macs_less_1"] = round(off, 4)
        row["time_as_macs"] = abs(off) <= MAC_TOLERANCE
    return rows


@torch.inference_mode()
def criterion_overhead(
    asr: EarlyExitASR,
    policy: LivePolicy,
    batches: Sequence[Batch],
    warmup: int = 3,
) -> dict[str, Any]:
    """(b): the time of a direct decision over that of an encoder layer.

    Layers run in between, so that the criterion finds the caches as they
    leave them.
    """
    model = asr.model
    layers, decisions = [], []
    warm = batches[:warmup]
    for turn, batch in enumerate([*warm, *batches]):
        state = model.start(batch.wavs_BS, batch.wav_lens_B)
        taken = TorchBatch(asr.runner, policy, state, batch.rows)
        for place, exit in enumerate(policy.exits[:-1]):
            before, start = state.depth, time.perf_counter()
            state = model.encoder.advance(state)
            took = (time.perf_counter() - start) / (state.depth - before)
            taken.output = model.heads(exit, state)
            taken.exits.append(exit)
            start = time.perf_counter()
            policy.rule.stop(place + 1, taken.scores(place))
            if turn >= len(warm):
                decisions.append(time.perf_counter() - start)
                layers.append(took)
    share = float(np.median(decisions) / np.median(layers))
    return {
        "criterion": policy.scorer.criterion.name,
        "batch_size": len(batches[0].rows),
        "layer_us": round(1e6 * float(np.median(layers)), 1),
        "decision_us": round(1e6 * float(np.median(decisions)), 1),
        "share_of_a_layer": round(share, 5),
        "holds": share <= MOST_OVERHEAD,
    }


@torch.inference_mode()
def all_then_choose(
    asr: EarlyExitASR, policy: LivePolicy, batch: Batch
) -> list[Chosen]:
    """(d): every exit computed, the same decisions taken afterwards."""
    outputs = asr.model(batch.wavs_BS, batch.wav_lens_B)
    taken = TorchBatch(asr.runner, policy, None, batch.rows)
    scores: list[Any] = []
    for place, exit in enumerate(policy.exits):
        taken.output = outputs[exit - 1]
        taken.exits.append(exit)
        last = place == len(policy.exits) - 1
        scores.append(scores[-1] if last else taken.scores(place))
    place_B = policy.rule.choose(np.stack(scores, axis=1))
    chosen = []
    for row, place in enumerate(place_B.tolist()):
        exit = policy.exits[place]
        output = chosen_rows(outputs[exit - 1], np.array([row]))
        tokens = asr.runner.decoding(exit, output)[0].tokens
        layer = policy.layers[place]
        text = asr.decode(list(tokens))
        chosen.append(Chosen(text, tuple(tokens), exit, layer))
    return chosen


def against_all_exits(
    asr: EarlyExitASR,
    policy: LivePolicy,
    spoken: Sequence[Spoken],
    warmup: int,
    repeats: int,
    size: int = 1,
) -> dict[str, Any]:
    """(d): stopping early over choosing afterwards, checked to say the same."""
    batches = batches_of(spoken, size)

    def afterwards() -> tuple[Chosen, ...]:
        rows: dict[int, Chosen] = {}
        for batch in batches:
            found = all_then_choose(asr, policy, batch)
            rows.update(zip(batch.rows, found, strict=True))
        return tuple(rows[row] for row in range(len(rows)))

    early = partial(transcribed, asr.runner, batches, policy)
    tasks = {
        Configuration("early", size, 1, "torch"): early,
        Configuration("afterwards", size, 1, "torch"): afterwards,
    }
    audio_s = sum(len(one.wav_S) for one in spoken) / asr.sample_rate
    one, other = measure_in_turn(tasks, warmup, repeats, audio_s)
    same = [
        (a.exit, a.tokens, a.text) == (b.exit, b.tokens, b.text)
        for a, b in zip(one.hypotheses, other.hypotheses, strict=True)
    ]
    ratios = np.array(other.wall_s_R) / np.array(one.wall_s_R)
    return {
        "policy": policy.name,
        "batch_size": size,
        "early_s": round(one.wall_s, 4),
        "afterwards_s": round(other.wall_s, 4),
        "speedup": round(float(np.median(ratios)), 4),
        "utterances": len(same),
        "same_outputs": all(same),
        "holds": bool(all(same) and np.median(ratios) >= LEAST_SPEEDUP),
    }


def probes(asr: EarlyExitASR, trace: Trace) -> dict[str, LivePolicy]:
    """Policies to check: those of the model, exits, thresholds in between.

    A threshold lies between two scores that occur, so that rounding in
    another batch cannot decide.
    """
    found = {name: asr.policies.resolve(name) for name in asr.policies.shipped}
    for exit, _ in enumerate(trace.layers_E, start=1):
        found[f"exit {exit}"] = asr.policies.resolve(exit)
    for name in PROBED:
        given = {"learned": asr.folder.selector}
        given["combination"] = asr.folder.combination
        criterion = get_criterion(name)
        if given.get(name, True) is None:
            continue
        if not criterion.available(trace.evidence.names):
            continue
        scores = np.unique(criterion.scores(trace.evidence)[:, :-1])
        scores = scores[np.isfinite(scores)]
        for quantile in QUANTILES if len(scores) > 1 else ():
            place = int(quantile * (len(scores) - 2))
            limit = float(scores[place] / 2 + scores[place + 1] / 2)
            rule = ThresholdPolicy(name, limit, len(trace.layers_E))
            title = f"{name} >= {limit:.6g}"
            found[title] = asr.policies.resolve(rule)
    return found


def predicted(policy: LivePolicy, trace: Trace) -> np.ndarray:
    """Exits that a policy takes by the trace, from 1."""
    if policy.rule is None:
        return np.full(len(trace), policy.exits[-1])
    scores_NE = get_criterion(policy.rule.criterion).scores(trace.evidence)
    return policy.rule.choose(scores_NE) + 1


def decisions(
    asr: EarlyExitASR,
    trace: Trace,
    spoken: Sequence[Spoken],
    batch_sizes: Sequence[int],
) -> dict[str, Any]:
    """(e): live decisions, transcripts and layers beside the trace's."""
    rows = {record.id: row for row, record in enumerate(trace.records)}
    places = [rows[one.id] for one in spoken]
    layers_E, rounds, wrong = trace.layers_E, 0, []
    every = np.arange(1, len(asr.model.encoder.layers) + 1)
    layers_as_predicted = True
    for name, policy in probes(asr, trace).items():
        exit_N = predicted(policy, trace)[places]
        for size in batch_sizes:
            batches = batches_of(spoken, size)
            with utterances_through(asr.model) as counts:
                heard = transcribed(asr.runner, batches, policy)
            through = layers_E[exit_N - 1][:, None] >= every
            if counts != through.sum(axis=0).tolist():
                layers_as_predicted = False
            rounds += len(heard)
            for place, exit, one in zip(places, exit_N.tolist(), heard):
                record = trace.records[place]
                text = record.exits[exit - 1].hyp
                if (one.exit, one.text) != (exit, text):
                    wrong.append(
                        {
                            "id": record.id,
                            "policy": name,
                            "batch_size": size,
                            "predicted": [exit, text],
                            "live": [one.exit, one.text],
                            "score": one.score,
                        }
                    )
    return {
        "set": trace.sets[0],
        "decoding": asr.runner.decoding.name,
        "utterances": len(spoken),
        "policies": list(probes(asr, trace)),
        "batch_sizes": list(batch_sizes),
        "decisions": rounds,
        "different": len(wrong),
        "first_different": wrong[:5],
        "layers_ran_as_predicted": layers_as_predicted,
        "holds": not wrong and layers_as_predicted,
    }
