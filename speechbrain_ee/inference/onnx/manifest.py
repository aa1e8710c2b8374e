"""``onnx.json``: what a folder of graphs holds, for hosts without torch.

Schema ``early-exit-onnx/1``. Plain data, every key checked.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.files import check_keys, read_json, whole_file

MANIFEST_FILE = "onnx.json"
LANGUAGE_MODEL_FILE = "language_model.json.gz"  # of characters, of texts
SCHEMA = "early-exit-onnx/1"
PRECISIONS = ("fp32", "int8")
POSITION_KINDS = ("relative", "rotary", "none")
_WAY_OUT = "write the graphs again with `export --format onnx`"


@dataclass(frozen=True)
class Manifest:
    """What the graphs of a folder are.

    Arguments
    ---------
    name : str
        The system.
    sample_rate : int
        Samples per second of the audio.
    exit_layers : tuple of E int
        Layers that the exits follow.
    vocab_size : int
        Tokens, blank included.
    blank_index : int
        CTC's blank.
    positions : str
        How positions reach the segments, one of :data:`POSITION_KINDS`.
    measures : tuple of str
        Evidence that every segment puts out.
    frame_s : float
        Seconds from one encoder frame to the next.
    precisions : tuple of str
        Which sets of graphs there are, of :data:`PRECISIONS`.
    default_policy : str, optional
        Name of the policy that is followed if nothing is said.
    hop : int
        Samples from one frame of features to the next.
    start_macs : tuple of int
        Multiply-accumulates (MACs) of the start for so many hops of audio:
        0, 1, … up to those of one encoder frame.
    segment_macs, head_macs : tuple of E triples of float
        MACs of the layers of each segment and of its head, as coefficients
        of 1, T and T squared, T encoder frames.
    """

    name: str
    sample_rate: int
    exit_layers: tuple[int, ...]
    vocab_size: int
    blank_index: int
    positions: str
    measures: tuple[str, ...]
    frame_s: float
    precisions: tuple[str, ...]
    default_policy: str | None
    hop: int
    start_macs: tuple[int, ...]
    segment_macs: tuple[tuple[float, ...], ...]
    head_macs: tuple[tuple[float, ...], ...]

    def macs(self, samples: int, frames: int, reads: tuple[int, ...]) -> int:
        """MACs of an utterance.

        Arguments
        ---------
        samples : int
            Length of its audio.
        frames : int
            Its encoder frames.
        reads : tuple of int
            Exits whose heads were read, from 1; the layers up to the last of
            them ran.

        Returns
        -------
        int
            Those of :class:`speechbrain_ee.evaluation.cost.CostModel`.
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


def start_file(precision: str) -> str:
    """File of the graph from waveforms to the first layer."""
    return f"start{_suffix(precision)}.onnx"


def segment_file(exit: int, precision: str) -> str:
    """File of the graph of a segment, by the exit that it ends with."""
    return f"exit_{exit:02d}{_suffix(precision)}.onnx"


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write ``onnx.json``.

    Arguments
    ---------
    folder : str or Path
        Where.
    manifest : Manifest
        What.
    """
    row = {"schema": SCHEMA, **asdict(manifest)}
    with whole_file(Path(folder) / MANIFEST_FILE) as stream:
        stream.write((json.dumps(row, indent=1) + "\n").encode())


def read_manifest(folder: str | Path) -> Manifest:
    """Read ``onnx.json`` and check it.

    Arguments
    ---------
    folder : str or Path
        A folder that an export wrote.

    Returns
    -------
    Manifest

    Raises
    ------
    InputError
        With file and key, if something is missing or does not fit.
    """
    path = Path(folder) / MANIFEST_FILE
    row = read_json(path, _WAY_OUT)
    names = [each.name for each in fields(Manifest)]
    check_keys(row, SCHEMA, names, path, _WAY_OUT)
    manifest = Manifest(**{name: _tuples(row[name]) for name in names})
    _check(path, manifest)
    return manifest


def _check(path: Path, manifest: Manifest) -> None:
    def expect(key: str, fits: bool) -> None:
        if not fits:
            _fail(path, key, f"{quoted(getattr(manifest, key))} does not fit")

    # First those that others are compared with.
    exits, precisions = manifest.exit_layers, manifest.precisions
    expect("exit_layers", _rising(exits))
    expect("vocab_size", _whole(manifest.vocab_size, 2))
    expect("sample_rate", _whole(manifest.sample_rate, 1))
    expect(
        "blank_index",
        _whole(manifest.blank_index, 0)
        and manifest.blank_index < manifest.vocab_size,
    )
    expect("positions", manifest.positions in POSITION_KINDS)
    expect("measures", _list_of(manifest.measures, str))
    expect(
        "frame_s",
        isinstance(manifest.frame_s, float) and manifest.frame_s > 0,
    )
    expect(
        "precisions",
        bool(precisions)
        and _list_of(precisions, str)
        and {*precisions} <= {*PRECISIONS},
    )
    expect("default_policy", isinstance(manifest.default_policy, str | None))
    expect("hop", _whole(manifest.hop, 1))
    expect(
        "start_macs",
        _list_of(manifest.start_macs, int) and len(manifest.start_macs) > 1,
    )
    for key in ("segment_macs", "head_macs"):
        rows = getattr(manifest, key)
        expect(key, _rows(rows, 3) and len(rows) == len(exits))


def _fail(path: Path, key: str, what: str) -> None:
    raise InputError(f"{path}, key {key}: {what}; {_WAY_OUT}.")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _list_of(value: Any, kind: type) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, kind) for v in value)


def _rising(value: Any) -> bool:
    whole = isinstance(value, tuple) and all(_whole(v, 1) for v in value)
    return whole and bool(value) and list(value) == sorted({*value})


def _rows(value: Any, width: int) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(row, tuple)
        and len(row) == width
        and all(type(each) in (int, float) for each in row)
        for row in value
    )


def _suffix(precision: str) -> str:
    return "" if precision == "fp32" else f".{precision}"
