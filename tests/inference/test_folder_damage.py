"""Damaged and hostile inference folders: refused by file and key, and nothing in
them is executed.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import (
    ExitPolicy,
    read_policy,
    write_policy,
)
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.selector.selector import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import write_selector
from speechbrain_ee.exits.trace_file import write_trace
from speechbrain_ee.inference.folder.model_folder import (
    read_combination,
    read_model_folder,
    write_combination,
)
from tests.inference.runs import Bomb, random_trace, write_tokenizer

NEEDED = ("config.json", "model.safetensors", "tokenizer.model")
OPTIONAL = ("selector.json.gz", "combination.json", "calibration.jsonl.gz")
POLICY = "policies/entropy.naive.yaml"
ROW = {
    **{"set": "test", "choice": "exit 1", "layer": 1.0, "wer": 5.0},
    **{"macs": None, "utterances": 9},
}


@pytest.mark.parametrize("name", [*NEEDED, *OPTIONAL, POLICY])
def test_a_missing_or_damaged_file_is_named(copied, tmp_path, name):
    path, bomb = copied / name, Bomb(tmp_path / "marker")
    torch.save(bomb, tmp_path / "pickle")
    for content in (
        *(b"", b"\x80\x04garbage\xff", b"[1, 2]"),
        *(pickle.dumps(bomb), (tmp_path / "pickle").read_bytes()),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=str(path)):
            read_model_folder(copied)
    path.unlink()
    for pickled in ("model.pt", "weights.bin"):
        shutil.copy(tmp_path / "pickle", copied / pickled)
    if name in NEEDED:
        with pytest.raises(InputError, match=f"{path}: there is no such file"):
            read_model_folder(copied)
    assert not bomb.marker.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({key: ...}, f"key {key}: missing")
        for key in (
            "schema name sample_rate decoding search default_policy facts "
            "measured model version".split()
        )
    ]
    + [
        ({"schema": "early-exit-model/2"}, "key schema: .*update speechbrain"),
        ({"schema": "something/1"}, "'something/1'.* early-exit-model/1"),
        ({"smaple_rate": 1}, "key smaple_rate: not known; valid keys: schema"),
        ({"sample_rate": "16k"}, "key sample_rate: '16k'"),
        ({"sample_rate": True}, "key sample_rate: True"),
        ({"sample_rate": 0}, "key sample_rate: 0 .*1000"),
        ({"decoding": "magic"}, "key decoding: .*'magic'.* ctc_greedy"),
        ({"decoding": "joint"}, "key decoding"),
        ({"search": {"beam": 1}}, "search.beam: not known; .*beam_size"),
        ({"search": {"beam_size": 0}}, "search, key beam_size: 0"),
        ({"measured": [{}]}, r"key measured\[0\].set: missing"),
        ({"measured": [ROW | {"choice": 1}]}, r"key measured\[0\].choice: 1"),
        ({"default_policy": "fast"}, r"no policies/fast\.yaml"),
        ({"model": {"class": "os.system"}}, "key model.class: 'os.system'"),
        ({"model": {}}, "key model"),
    ],
)
def test_a_wrong_config_is_refused_by_key(copied, changes, said):
    path = copied / "config.json"
    content = json.loads(path.read_text("utf-8")) | changes
    content = {k: v for k, v in content.items() if v is not Ellipsis}
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match=f"config.json, .*{said}") as found:
        read_model_folder(copied)
    way_out = ("speechbrain_ee export", "valid here")
    assert any(each in str(found.value) for each in way_out)


def test_parts_for_other_exits_are_refused(copied):
    others = (1, 2, 9)
    policy = ExitPolicy("entropy", others, -0.1, "wer=+5%", "naive")
    trace = random_trace("dev", others, 0)
    for name, write in {
        "policies/mine.yaml": lambda path: write_policy(path, policy),
        "selector.json.gz": lambda path: write_selector(
            path, LearnedSelector.fit(trace)
        ),
        "calibration.jsonl.gz": lambda path: write_trace(
            path, trace.header, trace.records
        ),
    }.items():
        kept = (copied / name).exists() and (copied / name).read_bytes()
        write(copied / name)
        said = rf"{name}, key exit_layers: \[1, 2"
        with pytest.raises(InputError, match=said):
            read_model_folder(copied)
        (copied / name).write_bytes(kept) if kept else (copied / name).unlink()


def test_learned_policies_need_their_selector(copied):
    for path in (copied / "policies").glob("learned.*"):
        selector = path.parent / read_policy(path).selector
        assert selector.resolve() == (copied / "selector.json.gz").resolve()
    selector.unlink()
    with pytest.raises(InputError, match="learned.*no selector.json.gz"):
        read_model_folder(copied)
    for path in (copied / "policies").glob("learned.*"):
        path.unlink()
    found = sorted(read_model_folder(copied).policies)
    assert found == ["entropy.ltt", "entropy.naive"]


def test_a_tokenizer_of_more_tokens_is_refused(copied):
    letters = "".join(map(chr, range(33, 93)))
    write_tokenizer(copied / "tokenizer.model", [letters], vocab_size=60)
    with pytest.raises(InputError, match="60 tokens, but the model .* 32"):
        read_model_folder(copied)
    write_tokenizer(copied / "tokenizer.model", bos_id=-1, eos_id=-1)
    read_model_folder(copied)


def test_combinations_round_trip_and_are_checked(tmp_path):
    path = tmp_path / "combination.json"
    wanted = ZScores({"entropy": 1.0}, {"entropy": -0.25}, {"entropy": 0.5})
    write_combination(path, wanted)
    assert read_combination(path) == wanted
    good = json.loads(path.read_text("utf-8"))
    for change in (
        *({"schema": "x"}, {"means": {}}, {"means": {"entropy": "0"}}),
        *({"means": [1]}, {"more": 1}),
    ):
        path.write_text(json.dumps(good | change), "utf-8")
        with pytest.raises(InputError, match=str(path)):
            read_combination(path)


@pytest.mark.parametrize(
    "tag", ["!apply:os.system", "!!python/object/apply:os.system"]
)
def test_a_policy_that_would_be_executed_is_refused(copied, tmp_path, tag):
    path, marker = copied / POLICY, tmp_path / "marker"
    text = path.read_text("utf-8")
    path.write_text(f"bomb: {tag} [touch {marker}]\n{text}", "utf-8")
    with pytest.raises(InputError, match="entropy.naive.yaml.*plain values"):
        read_model_folder(copied)
    assert not marker.exists()


def test_a_backbone_that_names_code_is_refused(exported, tmp_path):
    folder = Path(shutil.copytree(exported("tiny_ssl"), tmp_path / "f"))
    for name in ("config.json", "preprocessor_config.json"):
        path = folder / "backbone" / name
        good = path.read_text("utf-8")
        for key in ("auto_map", "attn_implementation", "_attn_implementation"):
            path.write_text(json.dumps(json.loads(good) | {key: "evil/x"}))
            with pytest.raises(InputError, match=f"{path}, key {key}.*code"):
                read_model_folder(folder)
        path.unlink()
        with pytest.raises(InputError, match=f"{path}: there is no such file"):
            read_model_folder(folder)
        path.write_text(good, "utf-8")
    read_model_folder(folder)
