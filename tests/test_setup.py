"""Setting up: the lock against setup.cfg, and what a failed set-up says.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYTHONS = ("3.10", "3.11", "3.12", "3.13")

# An interpreter whose pip and whose import of torch end as a test says.
INTERPRETER = """#!/bin/sh
case "$*" in
*"install --help"*) ;;
"-m pip"*) cat "{folder}/pip.txt"; exit {pip} ;;
"-c import torch"*) cat "{folder}/import.txt" >&2; exit {torch} ;;
*) exec {python} "$@" ;;
esac
"""
UNDEFINED_SYMBOL = (
    "OSError: libtorchaudio.so: undefined symbol: torch_exception_get_what\n"
)


def pins(repository: Path) -> list[Requirement]:
    """The lines of the lock."""
    text = (repository / "requirements/lock.txt").read_text(encoding="utf-8")
    lines = [each.partition("#")[0].strip() for each in text.splitlines()]
    return [Requirement(each) for each in lines if each]


def asked(repository: Path) -> list[Requirement]:
    """What setup.cfg asks for: the core, and the extras that are locked."""
    text = (repository / "setup.cfg").read_text(encoding="utf-8")
    blocks = re.findall(
        r"^(install_requires|demo|dev) =\n((?:[ #].*\n)+)", text, flags=re.M
    )
    assert [name for name, _ in blocks] == ["install_requires", "demo", "dev"]
    lines = [each for _, block in blocks for each in block.splitlines()]
    return [Requirement(each) for each in lines if not each.startswith("#")]


def applies(pin: Requirement, python: str) -> bool:
    """Whether a line of the lock is for this Python on Linux."""
    if pin.marker is None:
        return True
    return Marker(str(pin.marker)).evaluate(
        {
            "python_version": python,
            "python_full_version": f"{python}.9",
            "sys_platform": "linux",
            "platform_machine": "x86_64",
        }
    )


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_names_one_allowed_version_of_every_package(repository, python):
    """On every Python, one version of each, within the range of setup.cfg."""
    locked: dict[str, str] = {}
    for pin in pins(repository):
        if not applies(pin, python):
            continue
        name = canonicalize_name(pin.name)
        assert name not in locked, f"{name} twice on Python {python}"
        (only,) = pin.specifier
        assert only.operator == "==", pin
        locked[name] = only.version
    for requirement in asked(repository):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
    for name in ("torch", "torchaudio"):
        assert Version(locked[name]) >= Version("2.11.1"), "a pair that imports"


def failed_setup(
    repository: Path,
    folder: Path,
    pip: tuple[int, str],
    torch: tuple[int, str] = (0, ""),
) -> str:
    """Run `make install` with an interpreter that fails; what the user sees."""
    venv = folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (folder / "pip.txt").write_text(pip[1], encoding="utf-8")
    (folder / "import.txt").write_text(torch[1], encoding="utf-8")
    program = venv / "bin" / "python"
    program.write_text(
        INTERPRETER.format(
            folder=folder, python=sys.executable, pip=pip[0], torch=torch[0]
        ),
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    run = subprocess.run(
        ["make", "install", f"VENV={venv}"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    )
    assert run.returncode != 0
    assert not list(venv.glob(".dev-*")), "a failed set-up is not done"
    assert "Found here: Python" in run.stderr
    assert run.stderr.count("To mend it: ") == 1
    return run.stderr


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] "
            "No space left on device",
            "free 6 GB, or take another disk: make install VENV=",
        ),
        (
            "WARNING: Retrying after connection broken by 'NewConnection"
            "Error(...: Temporary failure in name resolution)'\n"
            "ERROR: No matching distribution found for torch",
            "make install   (again",
        ),
        (
            "ERROR: No matching distribution found for torch==2.14.1",
            "make install LOCK=",
        ),
        ("error: something else", "make distclean install"),
    ],
)
def test_a_failing_pip_is_quoted_with_a_way_out(
    repository, tmp_path, reason, mend
):
    """pip's own last lines, and one command for this kind of failure."""
    said = failed_setup(repository, tmp_path, (1, f"Collecting x\n{reason}\n"))
    assert reason.splitlines()[-1] in said
    assert f"To mend it: {mend}" in said


def test_a_pair_that_does_not_import_is_quoted_with_a_way_out(
    repository, tmp_path
):
    """The loader's message, the versions, one command."""
    said = failed_setup(
        repository, tmp_path, (0, "fine\n"), (1, UNDEFINED_SYMBOL)
    )
    assert UNDEFINED_SYMBOL.strip() in said
    assert re.search(r"torch \d+\.\d+", said), "the versions found"
    assert "To mend it: make distclean install" in said


def test_an_index_that_does_not_answer_is_a_network_failure(
    repository, tmp_path
):
    """The real pip against a closed port of this machine."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    run = subprocess.run(
        ["requirements/install.sh", venv, "demo", "requirements/lock.txt"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **{k: v for k, v in os.environ.items() if "PIP_" not in k},
            "PIP_CONFIG_FILE": os.devnull,
            "GOAL": "demo",
            "PIP_ARGS": "--retries 0 --no-cache-dir "
            "--index-url http://127.0.0.1:9/simple",
        },
    )
    assert run.returncode == 2
    assert "Connection refused" in run.stderr
    assert "torch absent" in run.stderr
    assert "To mend it: make demo   (again" in run.stderr
