"""Policy files: a calibrated policy as a small readable YAML file.

Schema ``exit-policy/1``. The file says which criterion is compared with
which thresholds at which exits, what was promised and on what it was
calibrated, and how the scores were distributed there. It is read with a
loader that builds plain values only.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from speechbrain_ee.errors import quoted
from speechbrain_ee.exits.calibration.exit_policy import (
    CalibrationSummary,
    ExitPolicy,
)
from speechbrain_ee.exits.calibration.policy_parse import Keys
from speechbrain_ee.exits.calibration.shift import ScoreDistribution
from speechbrain_ee.exits.clusters import SPEAKER, UTTERANCE
from speechbrain_ee.files import whole_file

__all__ = [
    "SCHEMA",
    "CalibrationSummary",
    "ExitPolicy",
    "read_policy",
    "write_policy",
]

SCHEMA = "exit-policy/1"


class _Dumper(yaml.SafeDumper):
    """Mappings by line, lists of plain values in brackets."""

    def represent_list(self, values: list[Any]) -> yaml.Node:
        """A list; in one line unless it holds mappings."""
        flat = not any(isinstance(value, dict) for value in values)
        return self.represent_sequence(
            "tag:yaml.org,2002:seq", values, flow_style=flat
        )


_Dumper.add_representer(list, _Dumper.represent_list)


def write_policy(path: str | Path, policy: ExitPolicy) -> None:
    """Write a policy file: all of it or nothing.

    Arguments
    ---------
    path : str or Path
        The file.
    policy : ExitPolicy
        Its content.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    path = Path(path)
    row = _rows(policy)
    notes = {
        "criterion": "when to stop; scores are higher the readier an exit is",
        "threshold": f"stop if the score is at least this{_raw(policy)}",
        "thresholds": "by exit, the last left out; .inf: never stop there",
        "budget": f"calibrated by {policy.method}",
        "scores": "distribution on the calibration data, by exit",
    }
    parts = ["# When may an utterance leave the encoder? An exit policy.\n"]
    for key, value in row.items():
        if key in notes:
            parts.append(f"# {notes[key]}\n")
        parts.append(
            yaml.dump(
                {key: value},
                Dumper=_Dumper,
                sort_keys=False,
                allow_unicode=True,
                default_flow_style=False,
                width=78,
            )
        )
    with whole_file(path) as stream:
        stream.write("".join(parts).encode())


def read_policy(path: str | Path) -> ExitPolicy:
    """Read a policy file and check every key of it.

    Arguments
    ---------
    path : str or Path
        A file that follows ``exit-policy/1``.

    Returns
    -------
    ExitPolicy

    Raises
    ------
    InputError
        With file and key, if the file is missing or malformed.
    """
    path = Path(path)
    keys = Keys.read(path)
    schema = keys.text("schema")
    if schema != SCHEMA:
        keys.fail("schema", f"{quoted(schema)} is not {SCHEMA!r}")
    layers = keys.rising("exit_layers")
    early = len(layers) - 1
    if ("threshold" in keys.values) == ("thresholds" in keys.values):
        keys.fail("threshold", "give either threshold or thresholds")
    threshold: float | tuple[float, ...]
    if "threshold" in keys.values:
        threshold = keys.number("threshold")
    else:
        threshold = keys.numbers("thresholds", early)
    policy = ExitPolicy(
        criterion=keys.text("criterion"),
        exit_layers=layers,
        threshold=threshold,
        budget=keys.budget("budget"),
        method=keys.method("method"),
        delta=keys.share("delta"),
        satisfied=keys.flag("satisfied"),
        guarantee=keys.text("guarantee", ""),
        target_utterances=keys.count("target_utterances", None),
        calibration=_summary(keys.part("calibration")),
        distributions=_distributions(keys, layers),
        selector=keys.text("selector", None),
    )
    keys.end()
    if policy.distributions and policy.calibration is None:
        keys.fail("calibration", "scores are given without it; add it")
    return policy


def _summary(keys: Keys | None) -> CalibrationSummary | None:
    if keys is None:
        return None
    summary = CalibrationSummary(
        model=keys.text("model"),
        decoding=keys.text("decoding"),
        sets=keys.texts("sets"),
        utterances=keys.count("utterances"),
        words=keys.count("words"),
        wer_last=keys.finite("wer_last"),
        wer=keys.finite("wer"),
        avg_layer=keys.finite("avg_layer"),
        avg_macs=keys.finite("avg_macs", None),
        fingerprint=keys.texts("fingerprint", ()),
        clustered_by=keys.text("clustered_by", None),
        clusters=keys.count("clusters", None),
    )
    if summary.clustered_by not in (None, SPEAKER, UTTERANCE):
        keys.fail(
            "clustered_by",
            f"{summary.clustered_by!r} is neither {SPEAKER!r} nor "
            f"{UTTERANCE!r}",
        )
    keys.end()
    return summary


def _distributions(
    keys: Keys, layers: tuple[int, ...]
) -> tuple[ScoreDistribution, ...]:
    parts = keys.parts("scores", len(layers) - 1)
    found = []
    for layer, part in zip(layers, parts):
        if part.count("layer") != layer:
            part.fail("layer", f"layer {layer} is expected here")
        scores = part.numbers("scores")
        shares = part.numbers("share_at_most", len(scores))
        rising = all(a < b for a, b in zip(scores, scores[1:]))
        growing = all(a <= b for a, b in zip((0.0, *shares), (*shares, 1.0)))
        if not rising or not growing:
            part.fail("scores", "scores and shares (0 to 1) must rise")
        part.end()
        found.append(ScoreDistribution(scores, shares))
    return tuple(found)


def _rows(policy: ExitPolicy) -> dict[str, Any]:
    """The file's content, in reading order."""
    row: dict[str, Any] = {
        "schema": SCHEMA,
        "criterion": policy.criterion,
        "exit_layers": [int(layer) for layer in policy.exit_layers],
    }
    if isinstance(policy.threshold, tuple):
        row["thresholds"] = [float(limit) for limit in policy.threshold]
    else:
        row["threshold"] = float(policy.threshold)
    if policy.selector is not None:
        row["selector"] = policy.selector
    for key in ("budget", "method", "delta", "satisfied", "guarantee"):
        row[key] = getattr(policy, key)
    if policy.target_utterances is not None:
        row["target_utterances"] = int(policy.target_utterances)
    if policy.calibration is not None:
        row["calibration"] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in vars(policy.calibration).items()
            if value is not None and value != ()
        }
    if policy.distributions:
        row["scores"] = [
            {
                "layer": int(layer),
                "scores": list(each.scores),
                "share_at_most": list(each.shares),
            }
            for layer, each in zip(policy.exit_layers, policy.distributions)
        ]
    return row


def _raw(policy: ExitPolicy) -> str:
    """What a single threshold means for the raw measure, where simple."""
    limit = policy.threshold
    if isinstance(limit, tuple) or not np.isfinite(limit):
        return ""
    if policy.criterion == "entropy":
        return f" (entropy at most {-limit:.6g})"
    return ""
