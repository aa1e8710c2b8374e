"""Policy files: what is written is what is read; mistakes are named.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import (
    CalibrationSummary,
    ExitPolicy,
    read_policy,
    write_policy,
)
from speechbrain_ee.exits.calibration.shift import distributions

NUMBERS = st.floats(allow_nan=False)
SCORES_NE = np.random.default_rng(0).normal(size=(60, 3)).round(3)


def policy_of(threshold):
    """A policy with every field filled."""
    return ExitPolicy(
        criterion="tsallis_min:alpha=0.5",
        exit_layers=(2, 4, 6),
        threshold=threshold,
        budget="wer=+5%",
        method="ltt",
        delta=0.05,
        guarantee='It\'s: "likely", but # not sure\nä',
        target_utterances=60,
        calibration=CalibrationSummary(
            "a: model",
            "greedy",
            ("one", "2"),
            60,
            900,
            4.0,
            4.25,
            3.5,
            1e9,
            clustered_by="speaker",
            clusters=12,
        ),
        distributions=distributions(SCORES_NE),
        selector="selectors/value.json",
    )


@settings(max_examples=30, deadline=None)
@given(NUMBERS | st.tuples(NUMBERS, NUMBERS))
def test_written_and_read_is_the_same_policy(tmp_path_factory, threshold):
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy = policy_of(threshold)
    write_policy(path, policy)
    before = path.read_bytes()
    again = read_policy(path)
    assert again == policy
    write_policy(path, again)
    assert path.read_bytes() == before and len(before) < 5000
    chosen = again.choose(SCORES_NE)
    assert chosen.tolist() == policy.choose(SCORES_NE).tolist()
    live = np.full(len(SCORES_NE), -1)
    for k, score_B in enumerate(SCORES_NE.T):
        live[np.asarray(again.stop(k + 1, score_B)) & (live < 0)] = k
    assert live.tolist() == chosen.tolist()


def test_least_a_policy_can_say(tmp_path):
    path = tmp_path / "policy.yaml"
    policy = ExitPolicy("entropy", (2, 4), -0.25, "layers=3", "naive")
    write_policy(path, policy)
    assert read_policy(path) == policy
    assert "entropy at most 0.25" in path.read_text(encoding="utf-8")
    assert policy.thresholds == (-0.25,)
    assert policy.name == "entropy, layers=3 (naive)"


NAN, INF = float("nan"), float("inf")
# a place in the file, another value (None: none) and what is said of it
MISTAKES = [
    ("schema", "exit-policy/2", "schema: .*valid: exit-policy/1"),
    ("schema", None, "schema: missing"),
    ("criterion", 3, "criterion"),
    ("criterion", None, "criterion: missing"),
    ("exit_layers", [4, 2, 6], "exit_layers"),
    ("exit_layers", [2], "exit_layers"),
    ("exit_layers", [2.5, 4, 6], "exit_layers"),
    ("thresholds", [0.5], "thresholds: 1 numbers where 2"),
    ("thresholds", [0.5, "high"], "'high'"),
    ("thresholds", [0.5, NAN], "threshold"),
    ("thresholds", [0.5, True], "thresholds"),
    ("thresholds", None, "either threshold or thresholds"),
    ("threshold", 0.5, "either threshold or thresholds"),
    ("budget", "wer=5", "wer=\\+5%"),
    ("method", "hope", "naive, crc, ltt"),
    ("delta", 1.5, "delta"),
    ("satisfied", "yes", "satisfied"),
    ("target_utterances", 0, "target_utterances"),
    ("target_utterances", True, "target_utterances"),
    ("guarantee", ["a"], "guarantee"),
    ("selector", 1, "selector"),
    ("limit", 0.5, "limit: not known"),
    ("calibration", [], "calibration"),
    ("calibration", None, "calibration"),
    ("calibration.model", None, "calibration.model: missing"),
    ("calibration.sets", "one", "calibration.sets"),
    ("calibration.wer", INF, "calibration.wer"),
    ("calibration.wers", 1.0, "calibration.wers: not known"),
    ("calibration.clusters", -1, "calibration.clusters"),
    ("calibration.clustered_by", "talk", "clustered_by: .*valid: speaker"),
    ("scores", [{"layer": 2}], r"scores\[0\].scores: missing"),
    ("scores.0.layer", 4, "scores are needed of layers"),
    ("scores.0.scores", [0.5, NAN], r"scores\[0\]: scores must rise"),
    ("scores.1.scores", [0.5, 0.5], r"scores\[1\]: scores must rise"),
    ("scores.1.share_at_most", [0.5, 2], r"scores\[1\]: scores must rise"),
]


@pytest.mark.parametrize(("place", "value", "said"), MISTAKES)
def test_mistakes_name_file_and_key(tmp_path, place, value, said):
    path = tmp_path / "policy.yaml"
    write_policy(path, policy_of((0.5, 0.25)))
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    row, (*outer, key) = content, place.split(".")
    for each in outer:
        row = row[int(each) if each.isdecimal() else each]
    row.pop(key, None)
    if value is not None:
        row[key] = value
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        read_policy(path)
    assert str(path) in str(caught.value)
    assert "`calibrate`" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a\n",
        b"a: [1\n",
        b"\xff\xfe\x00",
        b"criterion: !!python/object/apply:os.getcwd []\n",
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "policy.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="policy.yaml"):
        read_policy(path)


def test_missing_file_and_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml"):
        read_policy(tmp_path / "nowhere.yaml")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="file"):
        write_policy(tmp_path / "file" / "p.yaml", policy_of(0.5))
