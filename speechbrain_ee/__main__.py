"""Command line: ``speechbrain-ee <command>``.

The same as ``python -m speechbrain_ee <command>``, where the package is not
installed.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import io
import logging
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from speechbrain_ee import __version__
from speechbrain_ee.errors import InputError, exits_on_input_error

# Commands that say themselves what they take: module and one line of help.
ROOMS = {
    "transcribe": (
        "speechbrain_ee.inference.transcribe",
        "text from audio, each utterance as deep as a policy wants it",
    ),
    "export": (
        "speechbrain_ee.inference.export",
        "an inference folder, ONNX graphs, or a smaller model, from a run",
    ),
    "bench": (
        "speechbrain_ee.inference.bench",
        "time, memory and errors of policies, batches, threads, backends",
    ),
    "sweep": (
        "speechbrain_ee.sweeps.command",
        "search over keys of a YAML, on one machine or a cluster",
    ),
    "shards": (
        "speechbrain_ee.data.shards",
        "tar archives of a manifest's utterances, for training from afar",
    ),
}
# Commands that look criteria up by name.
READ_CRITERIA = "report calibrate learn transcribe export bench".split()
# With which the help of each command ends.
EXAMPLES = {
    "demo-corpus": "demo-corpus results/demo-corpus",
    "report": "report --trace results/demo/traces/test-clean.jsonl.gz "
    "--out report",
    "calibrate": "calibrate --trace results/demo/traces/dev-clean.jsonl.gz "
    "--criterion entropy --budget macs=60% --method naive --out policy.yaml",
    "learn": "learn --trace results/demo/traces/dev-clean.jsonl.gz "
    "--texts train.txt --out exits",
    "transcribe": "transcribe talk.wav --model results/demo/model "
    "--policy macs=60%",
    "export": "export results/demo --out demo-model",
    "bench": "bench --model results/demo/model "
    "--data results/demo/test-clean.csv --policy macs=60% --batch-size 1 16",
    "sweep": "sweep hparams/sweeps/exits/hpopt.yaml --workers 2",
    "shards": "shards results/demo/train.csv shards/train",
}


def _option(words: str, **more: Any) -> dict[str, Any]:
    """What argparse is told of an option."""
    return {"help": words, **more}


def _file(words: str, **more: Any) -> dict[str, Any]:
    return _option(words, metavar="FILE", **more)


def _files(words: str, **more: Any) -> dict[str, Any]:
    return _file(words, nargs="+", action="extend", **more)


def _flag(words: str, **more: Any) -> dict[str, Any]:
    return _option(words, action="store_true", **more)


_SPEAKERS = _flag(
    "where a trace names no speakers, take what stands before the first "
    "hyphen of an utterance's name, as in LibriSpeech"
)
# Commands that are one function each, whose arguments the options are named
# after: where it is, a line of help, the options.
FUNCTIONS: dict[str, tuple[str, str, dict[str, dict[str, Any]]]] = {
    "demo-corpus": (
        "speechbrain_ee.data.demo.corpus:demo_command",
        "synthesise the offline demo corpus",
        {
            "folder": _option("where the corpus shall lie"),
            "--seed": _option(
                "of all that is drawn: sentences, voices, noise (default 1234)",
                type=int,
                default=1234,
            ),
            "--scale": _option(
                "factor on the number of utterances (default 1: 1.7 hours)",
                type=float,
                default=1.0,
            ),
        },
    ),
    "report": (
        "speechbrain_ee.evaluation.report:report_command",
        "tables, figure and HTML page from exit traces",
        {
            "--trace": _files(
                "exit traces (.jsonl or .jsonl.gz)",
                dest="traces",
                required=True,
            ),
            "--out": _option("folder for the report", required=True),
            "--policy": _files(
                "policy files to measure, as `calibrate` writes them",
                dest="policies",
                default=[],
            ),
            "--dev": _file(
                "trace of the development set: criterion and threshold are "
                "chosen on it (default: on each test set itself, which "
                "flatters them)"
            ),
            "--overthinking": _flag(
                "compare the last exit with earlier ones, in domain and out"
            ),
            "--in-domain": _option(
                "test set that --overthinking takes for the domain (default "
                "the first)",
                metavar="NAME",
            ),
            "--json": _flag("print report.json, not tables", dest="as_json"),
            "--speakers-from-ids": _SPEAKERS,
        },
    ),
    "calibrate": (
        "speechbrain_ee.evaluation.calibrate:calibrate_command",
        "thresholds that hold a budget, from a trace",
        {
            "--trace": _file("calibration data", required=True),
            "--criterion": _option(
                "what decides, for example entropy", required=True
            ),
            "--budget": _option(
                "layers=8.5, macs=4.2G, macs=60%% (of the last exit's), "
                "wer=+0.5 (points) or wer=+5%% (relative), the last two over "
                "the last exit",
                required=True,
            ),
            "--method": _option(
                "naive, crc (conformal risk control) or ltt (Learn then Test, "
                "the default)",
                default="ltt",
            ),
            "--delta": _option(
                "accepted probability of breaking the budget (ltt; default "
                "0.1)",
                type=float,
                default=0.1,
            ),
            "--per-exit": _flag("a threshold per exit instead of one for all"),
            "--set": _option(
                "one set of the trace (default all)",
                dest="set_name",
                metavar="SET",
            ),
            "--target": _file("trace of the data that the policy is meant for"),
            "--selector": _file(
                "selector that gave the scores of --criterion learned"
            ),
            "--out": _option("policy file (.yaml) to write", required=True),
            "--speakers-from-ids": _SPEAKERS,
        },
    ),
    "learn": (
        "speechbrain_ee.evaluation.calibrate:learn_command",
        "learn from a trace at which exit to stop",
        {
            "--trace": _file("development data", required=True),
            "--texts": _file("training transcripts, one per line"),
            "--out": _option(
                "folder for the selector and the trace", required=True
            ),
            "--speakers-from-ids": _SPEAKERS,
        },
    ),
}


def _call(place: str, arguments: argparse.Namespace) -> str:
    """Call the function of a command with its options."""
    module, name = place.split(":")
    function = getattr(import_module(module), name)
    return function(**{key: getattr(arguments, key) for key in arguments.names})


def _imported(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("speechbrain_ee"):
            raise
        raise InputError(
            f"{name}: the package {error.name} is not installed, as on a device "
            "that only runs graphs; install speechbrain-ee with all that it "
            "needs (without --no-deps)."
        ) from error


def _parser(chosen: str = "") -> argparse.ArgumentParser:
    """Of the rooms' commands only the chosen one is imported."""
    parser = argparse.ArgumentParser(
        prog="speechbrain-ee",
        description="Early-exit speech recognition with SpeechBrain.",
        epilog="Training: python train.py hparams/<system>.yaml in "
        "recipes/LibriSpeech/EarlyExit.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, (place, words, options) in FUNCTIONS.items():
        command = commands.add_parser(name, help=words)
        names = [
            command.add_argument(o, **kw).dest for o, kw in options.items()
        ]
        command.set_defaults(run=partial(_call, place), names=names)
    for name, (module, words) in ROOMS.items():
        command = commands.add_parser(name, help=words, description=words)
        if name == chosen:
            room = _imported(name, module)
            room.add_arguments(command)
            command.set_defaults(run=room.run)
    for name in READ_CRITERIA:
        commands.choices[name].add_argument(
            "--criteria",
            metavar="FILE",
            action="append",
            default=[],
            help="Python file or module that registers criteria of your own; "
            "it is executed",
        )
    for name, example in EXAMPLES.items():
        command = commands.choices[name]
        before = textwrap.fill(command.epilog or "", 78)
        example = f"Example:\n  speechbrain-ee {example}"
        command.epilog = f"{before}\n\n{example}".strip()
        command.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


@exits_on_input_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A letter that a locale lacks is shown as its number.
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Says on import what it has set up.
    logging.getLogger("speechbrain").setLevel(logging.WARNING)
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser(given[0] if given else "")
    parsed, parsed.further = parser.parse_known_args(given)
    if parsed.further and not hasattr(parsed, "takes_further"):
        parser.error(f"unrecognized arguments: {' '.join(parsed.further)}")
    if getattr(parsed, "criteria", None):
        from speechbrain_ee.exits.criteria.registry import load_criteria

        for name in parsed.criteria:
            load_criteria(name)
    said = parsed.run(parsed)
    if said:
        print(said)
    sys.stdout.flush()  # a full disk is told here, not on the way out


if __name__ == "__main__":
    main()
