"""A fault in a user's own file: its line is shown, nothing of it stays.

The command line told what Python raised without the place, and criteria that
stood above the faulty line stayed registered: the mended file was then
refused, or half of it took part in every report.

Authors
 * The speechbrain-ee contributors 2026
"""

import sys

import pytest

from speechbrain_ee.__main__ import main
from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import (
    criterion_names,
    measure_names,
    registry,
)
from speechbrain_ee.exits.criteria.registry import load_criteria

CRITERION = """
from speechbrain_ee.exits.criteria import criterion
@criterion("{name}", formula="f", source="s")
def {name}(evidence):
    return None
"""


def registered() -> tuple[set[str], set[str]]:
    return {*measure_names()}, {*criterion_names()}


@pytest.fixture
def half(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bad_helper.py").write_text(CRITERION.format(name="bad_one"))
    path = tmp_path / "bad_half.py"
    path.write_text(
        f"import bad_helper\n{CRITERION.format(name='bad_two')}"
        'LIMIT = {}["limit"]\n'
    )
    yield path
    for name in registered()[1] & {"bad_one", "bad_two"}:
        registry._CRITERIA.pop(name)
    for name in ("bad_helper", "bad_half"):
        sys.modules.pop(name, None)


def test_all_of_a_file_is_registered_or_nothing(half):
    before = registered()
    with pytest.raises(InputError, match="bad_half.py cannot be imported"):
        load_criteria(half)
    assert registered() == before
    half.write_text(half.read_text().replace("{}", "{'limit': 1}"))
    assert {*load_criteria(half)} == {"bad_one", "bad_two"}


def test_the_line_of_the_users_file_is_shown(half, capsys):
    """Whatever the message was made of."""
    given = ["report", "--trace", "no", "--out", "no", "--criteria", str(half)]
    with pytest.raises(SystemExit):
        main(given)
    said = capsys.readouterr().err
    assert f'{half}, line 7: LIMIT = {{}}["limit"]' in said
    assert "Traceback" not in said


def test_the_line_of_a_class_that_a_yaml_names(half, capsys, monkeypatch):
    """The YAML of train.py, whose errors are put into one sentence."""
    from speechbrain_ee.errors import exits_on_input_error
    from speechbrain_ee.training.options import load_options
    from tests.inference.runs import HPARAMS

    half.write_text("def limit(): return 1 / 0\n")
    text = (HPARAMS / "digits.yaml").read_text("utf-8")
    path = half.with_name("mine.yaml")
    path.write_text(
        text.replace("criteria:", "#") + "criteria: !apply:bad_half.limit {}\n"
    )
    with pytest.raises(SystemExit):
        exits_on_input_error(load_options)(
            str(path),
            f"data_folder: {half.parent}\noutput_folder: {half.parent}/o\n",
        )
    assert (
        f"{half}, line 1: def limit(): return 1 / 0" in capsys.readouterr().err
    )
