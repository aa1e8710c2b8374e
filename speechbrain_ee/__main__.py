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


def _demo_corpus(arguments: argparse.Namespace) -> None:
    from speechbrain_ee.data.demo import build_demo_corpus

    corpus = build_demo_corpus(
        arguments.folder, seed=arguments.seed, scale=arguments.scale
    )
    for name, split in corpus.splits.items():
        print(
            f"{name:12s} {split.utterances:5d} utterances "
            f"{split.hours:6.2f} h {split.speakers:4d} speakers"
        )
    print(f"demo corpus: {corpus.folder}")


def _report(arguments: argparse.Namespace) -> None:
    from speechbrain_ee.evaluation.report import report_command

    print(
        report_command(
            arguments.trace,
            arguments.out,
            arguments.json,
            arguments.policy,
            arguments.overthinking,
            arguments.in_domain,
            arguments.dev,
            arguments.speakers_from_ids,
        )
    )


def _calibrate(arguments: argparse.Namespace) -> None:
    from speechbrain_ee.evaluation.calibrate import calibrate_command

    print(
        calibrate_command(
            arguments.trace,
            arguments.criterion,
            arguments.budget,
            arguments.method,
            arguments.delta,
            arguments.per_exit,
            arguments.out,
            arguments.set,
            arguments.target,
            arguments.selector,
            arguments.speakers_from_ids,
        )
    )


def _learn(arguments: argparse.Namespace) -> None:
    from speechbrain_ee.evaluation.learn import learn_command

    print(
        learn_command(
            arguments.trace,
            arguments.out,
            arguments.texts,
            arguments.speakers_from_ids,
        )
    )


def _add_rooms(commands: Any, chosen: str) -> None:
    """Only what was chosen is imported: others stand in the list of help."""
    for name, (module, words) in ROOMS.items():
        parser = commands.add_parser(name, help=words, description=words)
        if name == chosen:
            command = _imported(name, module)
            command.add_arguments(parser)
            parser.set_defaults(run=command.run)


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
    parser = argparse.ArgumentParser(
        prog="speechbrain-ee",
        description="Early-exit speech recognition with SpeechBrain.",
        epilog="Training: python train.py hparams/<system>.yaml in "
        "recipes/LibriSpeech/EarlyExit.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser(
        "demo-corpus", help="synthesise the offline demo corpus"
    )
    demo.add_argument("folder", help="where the corpus shall lie")
    demo.add_argument(
        "--seed",
        type=int,
        default=1234,
        help="of all that is drawn: sentences, voices, noise (default 1234)",
    )
    demo.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="factor on the number of utterances (default 1: 1.7 hours)",
    )
    demo.set_defaults(run=_demo_corpus)

    report = commands.add_parser(
        "report", help="tables, figure and HTML page from exit traces"
    )
    report.add_argument(
        "--trace",
        nargs="+",
        action="extend",
        required=True,
        metavar="FILE",
        help="exit traces (.jsonl or .jsonl.gz)",
    )
    report.add_argument("--out", required=True, help="folder for the report")
    report.add_argument(
        "--policy",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="policy files to measure, as `calibrate` writes them",
    )
    report.add_argument(
        "--dev",
        metavar="FILE",
        help="trace of the development set: criterion and threshold are "
        "chosen on it (default: on each test set itself, which flatters them)",
    )
    report.add_argument(
        "--overthinking",
        action="store_true",
        help="study what going on to the last exit costs, in domain and out",
    )
    report.add_argument(
        "--in-domain",
        metavar="NAME",
        help="test set that --overthinking takes for the domain (default "
        "the first)",
    )
    report.add_argument(
        "--json", action="store_true", help="print report.json, not tables"
    )
    report.set_defaults(run=_report)
    _add_calibrate(commands)
    learn = commands.add_parser(
        "learn", help="learn from a trace what going on is worth"
    )
    learn.add_argument(
        "--trace", required=True, metavar="FILE", help="development data"
    )
    learn.add_argument(
        "--texts", metavar="FILE", help="training transcripts, one per line"
    )
    learn.add_argument(
        "--out", required=True, help="folder for the selector and the trace"
    )
    learn.set_defaults(run=_learn)
    for name in ("report", "calibrate", "learn"):
        commands.choices[name].add_argument(
            "--speakers-from-ids",
            action="store_true",
            help="where a trace names no speakers, take what stands before "
            "the first hyphen of an utterance's name, as in LibriSpeech",
        )
    _add_rooms(commands, chosen)
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
        _end_with(commands.choices[name], f"speechbrain-ee {example}")
    return parser


def _end_with(parser: argparse.ArgumentParser, example: str) -> None:
    """Let a command's help end with an example, on a line of its own."""
    before = textwrap.fill(parser.epilog or "", 78)
    parser.epilog = f"{before}\n\nExample:\n  {example}".strip()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def _add_calibrate(commands: Any) -> None:
    calibrate = commands.add_parser(
        "calibrate", help="thresholds that hold a budget, from a trace"
    )
    calibrate.add_argument(
        "--trace", required=True, metavar="FILE", help="calibration data"
    )
    calibrate.add_argument(
        "--criterion",
        required=True,
        help="what decides, for example entropy",
    )
    calibrate.add_argument(
        "--budget",
        required=True,
        help="layers=8.5, macs=4.2G, macs=60%% (of the last exit's), "
        "wer=+0.5 (points) or wer=+5%% (relative), the last two over the last "
        "exit",
    )
    calibrate.add_argument(
        "--method",
        default="ltt",
        help="naive, crc (conformal risk control) or ltt (Learn then Test, "
        "the default)",
    )
    calibrate.add_argument(
        "--delta",
        type=float,
        default=0.1,
        help="accepted probability of breaking the budget (ltt; default 0.1)",
    )
    calibrate.add_argument(
        "--per-exit",
        action="store_true",
        help="a threshold per exit instead of one for all",
    )
    calibrate.add_argument("--set", help="one set of the trace (default all)")
    calibrate.add_argument(
        "--target",
        metavar="FILE",
        help="trace of the data that the policy is meant for",
    )
    calibrate.add_argument(
        "--selector",
        metavar="FILE",
        help="selector that gave the scores of --criterion learned",
    )
    calibrate.add_argument(
        "--out", required=True, help="policy file (.yaml) to write"
    )
    calibrate.set_defaults(run=_calibrate)


@exits_on_input_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Arguments
    ---------
    arguments : sequence of str, optional
        The command line without the program's name.
    """
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
    if isinstance(said, str):
        print(said)
    sys.stdout.flush()  # a full disk is told here, not on the way out


if __name__ == "__main__":
    main()
