"""The command ``export``: inference folders and graphs of trained models.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.card import default_words, model_card
from speechbrain_ee.inference.folder.hub import push_to_hub
from speechbrain_ee.inference.folder.model_folder import (
    CONFIG_FILE,
    ModelFolder,
    read_model_folder,
    truncated_folder,
    write_model_folder,
)
from speechbrain_ee.inference.folder.training_run import run_folder
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
    text = export_command(
        arguments.source,
        arguments.out,
        arguments.exit,
        arguments.format,
        arguments.name,
        arguments.push,
    )
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
    folder = _folder(Path(source), exit)
    if name is not None:
        folder = replace(folder, name=name)
    if format != "folder":
        write = export_static if format == "sherpa" else export_onnx
        return f"Graphs      {write(folder, out)}"
    written = write_model_folder(out, folder, model_card(folder))
    lines = _summary(folder, written)
    if push is not None:
        lines.append(f"Published   {push_to_hub(written, push)}")
    return "\n".join(lines)


def _folder(source: Path, exit: int | None) -> ModelFolder:
    if (source / CONFIG_FILE).is_file():
        folder = read_model_folder(source)
        return folder if exit is None else truncated_folder(folder, exit)
    if not (source / "hyperparams.yaml").is_file():
        raise InputError(
            f"{source}: holds neither {CONFIG_FILE} nor hyperparams.yaml; "
            "give the output_folder of a finished run, or an inference "
            "folder."
        )
    return run_folder(source, exit, timed=True)


def _summary(folder: ModelFolder, written: Path) -> list[str]:
    layers = ", ".join(map(str, folder.exit_layers))
    names = ", ".join(folder.policies) or "none"
    size = sum(f.stat().st_size for f in written.rglob("*") if f.is_file())
    return [
        f"Model       {folder.name}",
        f"Exits       after layers {layers}",
        f"Decoding    {folder.decoding}",
        f"Policies    {names}",
        "Default     "
        f"{default_words(folder.default_policy, folder.default_reason)}",
        f"Size        {size / 1e6:.1f} MB",
        f"Folder      {written}",
    ]
