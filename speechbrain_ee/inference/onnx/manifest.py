"""``onnx.json``: what a folder of graphs holds, for hosts without torch.

Schema ``early-exit-onnx/1``. Plain data, every key checked. Here, too, the
optional packages that graphs need are imported.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.files import check_keys, read_json, whole_file

MANIFEST_FILE = "onnx.json"
START_FILE = "start.onnx"  # from waveforms to the first layer
LANGUAGE_MODEL_FILE = "language_model.json.gz"  # of characters, of texts
SCHEMA = "early-exit-onnx/1"
TRANSCRIPTS = "transcripts"  # evidence that a host makes itself
PRECISIONS = ("fp32", "int8")
POSITION_KINDS = ("relative", "rotary", "none")
_WAY_OUT = "write the graphs again with `export --format onnx`"


@dataclass(frozen=True)
class Manifest:
    """What the graphs of a folder are."""

    name: str  # of the system
    sample_rate: int  # samples per second of the audio
    exit_layers: tuple[int, ...]  # layers that the exits follow
    vocab_size: int  # blank included
    blank_index: int
    positions: str  # how they reach the segments, one of POSITION_KINDS
    measures: tuple[str, ...]  # evidence that every segment puts out
    frame_s: float  # seconds from one encoder frame to the next
    precisions: tuple[str, ...]  # sets of graphs that there are
    default_policy: str | None  # followed if nothing is said
    hop: int  # samples from one frame of features to the next
    # Multiply-accumulates (MACs) of the start for so many hops of audio: 0,
    # 1, up to those of one encoder frame.
    start_macs: tuple[int, ...]
    # MACs of the layers of each segment and of its head, as coefficients of
    # 1, T and T squared, T encoder frames.
    segment_macs: tuple[tuple[float, ...], ...]
    head_macs: tuple[tuple[float, ...], ...]

    def macs(self, samples: int, frames: int, reads: tuple[int, ...]) -> int:
        """MACs of an utterance that ends at the last of the exits whose
        heads were read: those of ``evaluation.cost.CostModel``.
        """
        hops = len(self.start_macs) - 1
        # Every further encoder frame costs what the first one did.
        whole, rest = divmod(samples // self.hop, hops)
        each = self.start_macs[-1] - self.start_macs[0]
        start = self.start_macs[rest] + whole * each
        powers = np.array([1.0, frames, float(frames) ** 2])
        layers = np.array(self.segment_macs[: reads[-1]]).sum(0) @ powers
        heads = sum(np.array(self.head_macs[k - 1]) @ powers for k in reads)
        return round(float(start + layers + heads))


def segment_file(exit: int, precision: str) -> str:
    """File of the graph of a segment, by the exit that it ends with."""
    suffix = "" if precision == "fp32" else f".{precision}"
    return f"exit_{exit:02d}{suffix}.onnx"


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write ``onnx.json``."""
    row = {"schema": SCHEMA, **asdict(manifest)}
    with whole_file(Path(folder) / MANIFEST_FILE, text=True) as stream:
        stream.write(json.dumps(row, indent=1) + "\n")


def read_manifest(folder: str | Path) -> Manifest:
    """Read ``onnx.json`` and check it; errors name file and key."""
    path = Path(folder) / MANIFEST_FILE
    row = read_json(path, _WAY_OUT)
    names = [each.name for each in fields(Manifest)]
    check_keys(row, SCHEMA, names, path, _WAY_OUT)
    manifest = Manifest(**{name: _tuples(row[name]) for name in names})
    _check(path, manifest)
    return manifest


def _check(path: Path, manifest: Manifest) -> None:
    exits, vocab_size = manifest.exit_layers, manifest.vocab_size
    checks = {  # the first two stand first: others are compared with them
        "exit_layers": _rising(exits),
        "vocab_size": _whole(vocab_size, 2),
        "sample_rate": _whole(manifest.sample_rate, 1),
        "blank_index": _whole(manifest.blank_index, 0)
        and _whole(vocab_size, 2)
        and manifest.blank_index < vocab_size,
        "positions": manifest.positions in POSITION_KINDS,
        "measures": _list_of(manifest.measures, str),
        "frame_s": isinstance(manifest.frame_s, float) and manifest.frame_s > 0,
        "precisions": bool(manifest.precisions)
        and _list_of(manifest.precisions, str)
        and {*manifest.precisions} <= {*PRECISIONS},
        "default_policy": isinstance(manifest.default_policy, str | None),
        "hop": _whole(manifest.hop, 1),
        "start_macs": _list_of(manifest.start_macs, int)
        and len(manifest.start_macs) > 1,
        "segment_macs": _table(manifest.segment_macs, exits),
        "head_macs": _table(manifest.head_macs, exits),
    }
    for key, fits in checks.items():
        if not fits:
            raise InputError(
                f"{path}, key {key}: {quoted(getattr(manifest, key))} does "
                f"not fit; {_WAY_OUT}."
            )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _list_of(value: Any, kind: type) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, kind) for v in value)


def _rising(value: Any) -> bool:
    whole = isinstance(value, tuple) and all(_whole(v, 1) for v in value)
    return whole and bool(value) and list(value) == sorted({*value})


def _table(value: Any, exits: Any) -> bool:
    """Whether there are three numbers for each exit."""
    return (
        _list_of(value, tuple)
        and isinstance(exits, tuple)
        and len(value) == len(exits)
        and all(len(row) == 3 for row in value)
        and all(type(each) in (int, float) for row in value for each in row)
    )


def load(name: str, purpose: str) -> ModuleType:
    """Import an optional package, or say what it is wanted for.

    Example
    -------
    >>> load("json", "an example").dumps([1])
    '[1]'
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{purpose}: {name} is not there ({error}); install onnx and "
            "onnxruntime: pip install 'speechbrain-ee[onnx]'."
        ) from error
