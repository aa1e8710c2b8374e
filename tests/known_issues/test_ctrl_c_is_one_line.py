"""Ctrl-C ends everything with one line and status 130.

Trap avoided: whoever changes his mind while a library is imported, a corpus
is synthesised or a model is loaded reads thirty lines of its internals.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import subprocess
import sys

import pytest

from speechbrain_ee.errors import ends_on_interrupt, exits_on_input_error

# Stand-ins of libraries that are interrupted while they are imported; some
# make an error of their own of it.
INTERRUPT = (
    "import os, signal, time\n"
    # one that was started in the background may be deaf to it
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "os.kill(os.getpid(), signal.SIGINT)\n"
)
STUBS = {
    "as it is": f"{INTERRUPT}time.sleep(9)\n",
    "wrapped": (
        f"try:\n    {INTERRUPT.strip().replace(chr(10), chr(10) + '    ')}\n"
        "    time.sleep(9)\nexcept BaseException as error:\n"
        "    raise ImportError('numpy failed to import') from error\n"
    ),
}
RECIPE = "recipes/LibriSpeech/EarlyExit"
COMMANDS = {
    "train.py": ("speechbrain", [f"{RECIPE}/train.py", "demo.yaml"]),
    "transcribe": ("torch", ["-m", "speechbrain_ee", "transcribe", "a.wav"]),
    "report": (
        "numpy",
        ["-m", "speechbrain_ee", "report", "--trace", "x", "--out", "y"],
    ),
    "demo-corpus": ("numpy", ["-m", "speechbrain_ee", "demo-corpus", "x"]),
}


@pytest.mark.parametrize("stub", STUBS)
@pytest.mark.parametrize("command", COMMANDS)
def test_while_importing(command, stub, tmp_path, repository):
    library, arguments = COMMANDS[command]
    (tmp_path / f"{library}.py").write_text(STUBS[stub], "utf-8")
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=repository,
        env=dict(os.environ, PYTHONPATH=f"{tmp_path}{os.pathsep}{repository}"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, "\ninterrupted.\n")


def test_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    @exits_on_input_error
    def main() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            seen.append("cleaned up")

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130 and seen == ["cleaned up"]
    assert capsys.readouterr().err == "\ninterrupted.\n"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_other_ends_are_left_alone(error: BaseException) -> None:
    with pytest.raises(type(error)) as end, ends_on_interrupt():
        try:
            raise OSError
        except OSError:
            raise error from None
    assert end.value is error
