"""The command ``export``: inference folders and graphs of trained models.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.model_folder import (
    default_words,
    model_card,
    push_to_hub,
    write_model_folder,
)
from speechbrain_ee.inference.folder.training_run import open_folder
from speechbrain_ee.inference.onnx.export import export_onnx, export_static

FORMATS = ("folder", "onnx", "sherpa")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add(
        "source",
        metavar="FOLDER",
        help="output_folder of a finished run, or an inference folder",
    )
    add("--out", required=True, help="folder to write")
    add(
        "--exit",
        type=int,
        metavar="K",
        help="truncate the model at this exit (default: all exits)",
    )
    add(
        "--format",
        default="folder",
        help="folder (default); onnx: one graph per segment; sherpa: one "
        "graph that ends at --exit, for sherpa-onnx",
    )
    add("--name", help="name of the system (default: the run's system_name)")
    add(
        "--push",
        metavar="OWNER/NAME",
        help="publish the folder under this name on the hub",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command and show what was written."""
    names = ("source", "out", "exit", "format", "name", "push")
    text = export_command(**{key: getattr(arguments, key) for key in names})
    sys.stdout.write(f"{text}\n")


def export_command(
    source: str | Path,
    out: str | Path,
    exit: int | None = None,
    format: str = "folder",
    name: str | None = None,
    push: str | None = None,
) -> str:
    """Write the folder or the graphs; what ``export`` shows."""
    if format not in FORMATS:
        raise InputError(f"--format {format}: use one of {', '.join(FORMATS)}.")
    if push is not None and format != "folder":
        raise InputError(
            "--push: only inference folders are published; leave --format out."
        )
    folder = open_folder(source, exit, timed=True)
    if name is not None:
        folder = replace(folder, name=name)
    if format != "folder":
        write = export_static if format == "sherpa" else export_onnx
        return f"Graphs      {write(folder, out)}"
    written = write_model_folder(out, folder, model_card(folder))
    published = None if push is None else push_to_hub(written, push)
    size = sum(f.stat().st_size for f in written.rglob("*") if f.is_file())
    lines = {
        "Model": folder.name,
        "Exits": f"after layers {', '.join(map(str, folder.exit_layers))}",
        "Decoding": folder.decoding,
        "Policies": ", ".join(folder.policies) or "none",
        "Default": default_words(folder.default_policy, folder.default_reason),
        "Size": f"{size / 1e6:.1f} MB",
        "Folder": written,
        "Published": published,
    }
    return "\n".join(f"{k:<12}{v}" for k, v in lines.items() if v is not None)
