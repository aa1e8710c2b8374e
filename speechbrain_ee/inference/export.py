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
from speechbrain_ee.inference.folder.model_folder import (
    CONFIG_FILE,
    ModelFolder,
    read_model_folder,
    truncated_folder,
    write_model_folder,
)
from speechbrain_ee.inference.folder.training_run import run_folder

FORMATS = ("folder", "onnx", "sherpa")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        That of the command.
    """
    parser.add_argument(
        "source",
        metavar="FOLDER",
        help="output_folder of a finished run, or an inference folder",
    )
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument(
        "--exit",
        type=int,
        metavar="K",
        help="truncate the model at this exit (default: all exits)",
    )
    parser.add_argument(
        "--format",
        default="folder",
        help="folder (default); onnx: one graph per segment; sherpa: one "
        "graph that ends at --exit, for sherpa-onnx",
    )
    parser.add_argument(
        "--name", help="name of the system (default: the run's system_name)"
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="publish the folder under this name on the hub",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command and show what was written.

    Arguments
    ---------
    arguments : argparse.Namespace
        As :func:`add_arguments` declares them.
    """
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
    """What ``python -m speechbrain_ee export`` does.

    Arguments
    ---------
    source : str or Path
        ``output_folder`` of a finished run, or an inference folder.
    out : str or Path
        Folder to write.
    exit : int, optional
        Truncate the model at this exit, from 1.
    format : str
        ``folder``, ``onnx`` or ``sherpa``.
    name : str, optional
        Name of the system.
    push : str, optional
        Publish the folder under this name.

    Returns
    -------
    str
        The text to show.

    Raises
    ------
    InputError
        If the source cannot be read, there is no such exit or format, or the
        folder cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format}: use one of {', '.join(FORMATS)}.")
    if push is not None and format != "folder":
        raise InputError("--push: is of inference folders; leave --format out.")
    folder = _folder(Path(source), exit)
    if name is not None:
        folder = replace(folder, name=name)
    if format != "folder":
        return f"Graphs      {_graphs(folder, format, out)}"
    written = write_model_folder(out, folder, model_card(folder))
    lines = _summary(folder, written)
    if push is not None:
        from speechbrain_ee.inference.folder.hub import push_to_hub

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


def _graphs(folder: ModelFolder, format: str, out: str | Path) -> Path:
    # onnx is an optional package.
    if format == "sherpa":
        from speechbrain_ee.inference.onnx.sherpa import export_static

        return export_static(folder, out)
    from speechbrain_ee.inference.onnx.export import export_onnx

    return export_onnx(folder, out)


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
