"""A key that only the user's code reads is none of a misspelt option.

Trap avoided: a check for keys that have no effect knows the keys of the
recipe alone, and refuses what a user's Brain reads.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import sys
from pathlib import Path

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.options import load_options

DEMO = Path(__file__).resolve().parent.parent.parent / "hparams/demo.yaml"
BRAIN = """
import own_helpers
from own_terms import Term
from speechbrain_ee.training.systems import CTCEarlyExitBrain

class OwnBrain(CTCEarlyExitBrain):
    def on_stage_start(self, stage, epoch=None):
        super().on_stage_start(stage, epoch)
        self.gain = self.hparams.own_gain
        self.limit = getattr(self.hparams, "own_limit", None)
        commented_key = 1
"""
HELPERS = "def scale(hparams):\n    return hparams['own_scale']\n"
TERMS = """
class Term:
    def __init__(self, brain):
        self.share = brain.hparams.own_share
"""
READ = ("own_gain", "own_limit", "own_scale", "own_share")


@pytest.fixture
def options_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    files = {"own_brain": BRAIN, "own_helpers": HELPERS, "own_terms": TERMS}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)

    def load(*keys: str, brain: str = "own_brain.OwnBrain") -> dict:
        text = DEMO.read_text("utf-8").replace(
            "speechbrain_ee.training.systems.CTCEarlyExitBrain", brain
        )
        text += "".join(f"\n{key}: 0.5\n" for key in keys)
        path = tmp_path / "own.yaml"
        path.write_text(text, "utf-8")
        return load_options(
            str(path), f"data_folder: x\noutput_folder: {tmp_path}/out\n"
        )

    yield load
    for name in files:
        sys.modules.pop(name, None)


def test_keys_that_own_code_reads(options_of):
    """The Brain's file, and what it imports; nothing is announced."""
    options = options_of(*READ)
    assert [options[key] for key in READ] == [0.5] * 4
    assert options["brain_class"].__name__ == "OwnBrain"


@pytest.mark.parametrize(
    "key", ["own_gian", "commented_key", "exit_weigths", "log_probs"]
)
def test_keys_that_nothing_reads(options_of, key):
    """Also where it is a word of this package, or of a variable."""
    with pytest.raises(InputError, match=f"`{key}` is unknown.*hparams.{key}"):
        options_of(*READ, key)


def test_keys_that_the_script_that_runs_reads(
    options_of, monkeypatch, tmp_path
):
    """Also through what it imports; the YAML names nothing of it."""
    text = "import own_helpers\nlimit = lambda h: h.own_limit\n"
    (tmp_path / "own_brain.py").write_text(text, "utf-8")
    script = importlib.import_module("own_brain")
    monkeypatch.setitem(sys.modules, "__main__", script)
    stock = "speechbrain_ee.training.systems.CTCEarlyExitBrain"
    options_of("own_limit", "own_scale", brain=stock)
    with pytest.raises(InputError, match="`own_share` is unknown"):
        options_of("own_share", brain=stock)


def test_without_that_code_they_are_unknown(options_of):
    stock = "speechbrain_ee.training.systems.CTCEarlyExitBrain"
    for key in READ:
        with pytest.raises(InputError, match=f"`{key}` is unknown"):
            options_of(key, brain=stock)
