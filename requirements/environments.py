"""The lock, and environments newer and older than it.

    python requirements/environments.py lock      # what `make lock` runs
    python requirements/environments.py canary    # newest versions allowed
    python requirements/environments.py oldest    # lower bounds

``lock`` renews requirements/lock.txt for every Python that setup.cfg allows,
as far as requirements/hold.txt lets it go. ``canary`` and ``oldest`` make an
environment of their own beside .venv, without the lock, run the tests of SMOKE
in it, run the tests of pre-trained encoders with older releases of transformers
as well, and write what they found into the table of
CONTRIBUTING.md. The standard library is enough to run this.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
HOLD = ROOT / "requirements" / "hold.txt"
OLDEST_PYTHON = "3.10"
EXTRAS = ("demo", "dev")
# Packages whose versions the table names.
NAMED = (
    "torch",
    "torchaudio",
    "speechbrain",
    "transformers",
    "numpy",
    "scipy",
    "onnxruntime",
    "optuna",
)
# An encoder layer returned a tuple up to 5.10 and returns a tensor since 5.17.
TRANSFORMERS = ("4.57.*", "5.10.*")
ENCODER_TESTS = (
    "tests/models/test_ssl.py",
    "tests/models/test_pretrained.py",
)
# A few minutes that touch every room and every optional package.
SMOKE = (
    *ENCODER_TESTS,
    "tests/models/test_encoder.py",
    "tests/models/test_decoder.py",
    "tests/exits/test_criteria.py",
    "tests/evaluation/test_report.py",
    "tests/training/test_systems.py",
    "tests/recipes/test_debug_runs.py",
    "tests/inference/test_live.py",
    "tests/inference/test_onnx.py",
    "tests/sweeps",
)
ROW = "| {name} | {date} | {python} | {versions} | {outcome} |"
LOCK_HEADER = """\
# Every package of `demo` and `dev`, for Python 3.10 and later; pip constraints.
# `make lock` renews this file, `make canary` tries what is newer.
"""


def run(*command: object, **variables: str) -> None:
    """Run a command in the repository; a failure ends this program."""
    words = [str(each) for each in command]
    sys.stderr.write("+ " + " ".join(words) + "\n")
    status = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **variables}, check=False
    ).returncode
    if status:
        raise SystemExit(f"error: this command ended with {status}: {words}")


def environment(name: str) -> Path:
    """An empty virtual environment beside .venv; its interpreter."""
    folder = ROOT / name
    run(sys.executable, "-m", "venv", "--clear", folder)
    return folder / "bin" / "python"


def uv() -> Path:
    """The resolver, in an environment of its own."""
    program = ROOT / ".venv-uv" / "bin" / "uv"
    if not program.exists():
        run(environment(".venv-uv"), "-m", "pip", "install", "-q", "uv")
    return program


def compiled(*options: object) -> list[str]:
    """Lines `name==version` that uv resolves from setup.cfg."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.txt"
        extras = [f"--extra={each}" for each in EXTRAS]
        run(
            *(uv(), "pip", "compile", "--quiet", "--no-header"),
            *("--no-annotate", "--upgrade", *extras, *options),
            *("--output-file", out, "setup.cfg"),
        )
        return out.read_text(encoding="utf-8").splitlines()


def lock() -> None:
    """Renew requirements/lock.txt."""
    lines = compiled(
        *("--universal", "--python-version", OLDEST_PYTHON),
        *("--constraints", HOLD),
    )
    LOCK.write_text(LOCK_HEADER + "\n".join(lines) + "\n", encoding="utf-8")


def transformers_overlays(python: Path, folder: Path) -> list[Path]:
    """Folders with older releases of transformers, for PYTHONPATH."""
    overlays = []
    for release in TRANSFORMERS:
        overlays.append(folder / release.replace("*", "x"))
        pip_install(
            python, f"transformers=={release}", "--target", overlays[-1]
        )
    return overlays


def pip_install(python: Path, *arguments: object) -> None:
    """pip with the arguments that the Makefile passes on."""
    extra = os.environ.get("PIP_ARGS", "").split()
    run(
        *(python, "-m", "pip", "--disable-pip-version-check", "install"),
        *("-q", *extra, *arguments),
    )


def smoke(python: Path) -> str:
    """Run the smoke tests; then the encoders' on older transformers."""
    variables = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    pytest = (python, "-m", "pytest", "-q", "--timeout=600")
    run(*pytest, "-n", "2", "--dist", "loadfile", *SMOKE, **variables)
    passed = ["smoke tests pass"]
    with tempfile.TemporaryDirectory() as folder:
        for overlay in transformers_overlays(python, Path(folder)):
            run(*pytest, *ENCODER_TESTS, **variables, PYTHONPATH=str(overlay))
            passed.append(f"encoders on transformers {overlay.name} pass")
    return "; ".join(passed)


def record(name: str, python: Path, outcome: str) -> None:
    """Write what an environment holds into the table of CONTRIBUTING.md."""
    code = (
        "import platform; from importlib.metadata import version; "
        "print(platform.python_version()); "
        f"print(', '.join(n + ' ' + version(n) for n in {NAMED!r}))"
    )
    found = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    row = ROW.format(
        name=f"`make {name}`",
        date=date.today().isoformat(),
        python=found[0],
        versions=found[1],
        outcome=outcome,
    )
    path = ROOT / "CONTRIBUTING.md"
    text = path.read_text(encoding="utf-8")
    text, rows = re.subn(
        rf"^\| `make {name}` .*$", row, text, count=1, flags=re.M
    )
    if not rows:
        raise SystemExit(f"error: {path} has no row for `make {name}`: {row}")
    path.write_text(text, encoding="utf-8")


def canary() -> None:
    """The newest versions that setup.cfg allows, as pip takes them."""
    python = environment(".venv-canary")
    pip_install(python, "-e", f".[{','.join(EXTRAS)}]")
    record("canary", python, smoke(python))


def oldest() -> None:
    """The lower bounds of setup.cfg."""
    lines = compiled(
        *("--resolution", "lowest-direct", "--python", sys.executable)
    )
    python = environment(".venv-oldest")
    with tempfile.TemporaryDirectory() as folder:
        bounds = Path(folder) / "oldest.txt"
        bounds.write_text("\n".join(lines) + "\n", encoding="utf-8")
        pip_install(python, "-c", bounds, "-e", f".[{','.join(EXTRAS)}]")
    record("oldest", python, smoke(python))


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = {"lock": lock, "canary": canary, "oldest": oldest}
    parser.add_argument("command", choices=commands)
    commands[parser.parse_args().command]()


if __name__ == "__main__":
    main()
