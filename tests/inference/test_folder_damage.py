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
from sentencepiece import SentencePieceTrainer

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
from tests.inference.runs import (
    Bomb,
    random_trace,
    write_tokenizer,
)

ROW = {
    "set": "test",
    "choice": "exit 1",
    "layer": 1.0,
    "wer": 5.0,
    "macs": None,
    "utterances": 9,
}


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text("utf-8")) | changes
    content = {k: v for k, v in content.items() if v is not Ellipsis}
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.model"]
)
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(InputError, match=str(copied / name)):
        read_model_folder(copied)
    with pytest.raises(InputError, match="no such folder"):
        read_model_folder(copied / "elsewhere")


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "selector.json.gz",
        "combination.json",
        "calibration.jsonl.gz",
        "policies/entropy.naive.yaml",
    ],
)
@pytest.mark.parametrize("content", [b"", b"\x80\x04garbage\xff", b"[1, 2]"])
def test_a_damaged_file_is_named(copied, name, content):
    (copied / name).write_bytes(content)
    with pytest.raises(InputError, match=str(copied / name)):
        read_model_folder(copied)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({key: ...}, f"key {key}: ")
        for key in (
            "schema name sample_rate decoding search default_policy facts "
            "measured model version".split()
        )
    ]
    + [
        ({"schema": "early-exit-model/2"}, "update speechbrain-ee"),
        ({"schema": "something/1"}, "'something/1', but 'early-exit-model/1'"),
        ({"smaple_rate": 1}, "key smaple_rate: not known; valid keys: schema"),
        ({"sample_rate": "16k"}, "key sample_rate: '16k' is of a wrong type"),
        ({"sample_rate": True}, "key sample_rate: True"),
        ({"sample_rate": 0}, "key sample_rate: 0 Hz"),
        ({"decoding": "magic"}, "key decoding: 'magic' is not one of ctc_g"),
        ({"decoding": "joint"}, "key decoding"),
        ({"search": {"beam": 1}}, "key search.beam: not known; .*beam_size"),
        ({"search": {"beam_size": 0}}, "key search: .*beam_size: 0"),
        ({"measured": [{}]}, "key measured: a list of rows"),
        ({"measured": [ROW | {"choice": 1}]}, "key measured: a list of rows"),
        ({"default_policy": "fast"}, r"no policies/fast\.yaml"),
        ({"model": {"class": "os.system"}}, "key model.class: 'os.system'"),
        ({"model": {}}, "key model"),
    ],
)
def test_a_wrong_config_is_refused_by_key(copied, changes, said):
    edit_config(copied, **changes)
    with pytest.raises(InputError, match=f"config.json, .*{said}") as found:
        read_model_folder(copied)
    way_out = ("speechbrain_ee export", "valid here")
    assert any(each in str(found.value) for each in way_out)


def test_parts_for_other_exits_are_refused(copied, run_of):
    others = (1, 2, 9)
    policy = ExitPolicy("entropy", others, -0.1, "wer=+5%", "naive")
    write_policy(copied / "policies/mine.yaml", policy)
    with pytest.raises(InputError, match=r"mine.yaml, key exit_layers: \[1, 2"):
        read_model_folder(copied)
    (copied / "policies/mine.yaml").unlink()
    trace = random_trace("dev", others, 0)
    kept = (copied / "selector.json.gz").read_bytes()
    write_selector(copied / "selector.json.gz", LearnedSelector.fit(trace))
    with pytest.raises(InputError, match="selector.json.gz, key exit_layers"):
        read_model_folder(copied)
    (copied / "selector.json.gz").write_bytes(kept)
    path = copied / "calibration.jsonl.gz"
    write_trace(path, trace.header, trace.records)
    with pytest.raises(InputError, match="calibration.jsonl.gz, key exit_l"):
        read_model_folder(copied)


def test_learned_policies_need_their_selector(copied):
    (copied / "selector.json.gz").unlink()
    with pytest.raises(InputError, match="learned.*no selector.json.gz"):
        read_model_folder(copied)
    for path in (copied / "policies").glob("learned.*"):
        path.unlink()
    assert sorted(read_model_folder(copied).policies) == [
        "entropy.ltt",
        "entropy.naive",
    ]


def test_a_tokenizer_of_more_tokens_is_refused(copied, tmp_path):
    edit = json.loads((copied / "config.json").read_text("utf-8"))
    assert edit["model"]["heads"]["vocab_size"] == 32
    texts = ["".join(map(chr, range(33, 93))) for _ in range(9)]
    with open(tmp_path / "t.model", "wb") as stream:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=stream,
            model_type="char",
            vocab_size=60,
            minloglevel=2,
        )
    shutil.copy(tmp_path / "t.model", copied / "tokenizer.model")
    with pytest.raises(InputError, match="60 tokens, but the model .* 32"):
        read_model_folder(copied)
    write_tokenizer(copied / "tokenizer.model", bos_id=-1, eos_id=-1)
    read_model_folder(copied)


def test_a_policy_of_the_folder_finds_its_selector(copied):
    for path in (copied / "policies").glob("learned.*"):
        selector = path.parent / read_policy(path).selector
        assert selector.resolve() == (copied / "selector.json.gz").resolve()


def test_combinations_round_trip_and_are_checked(tmp_path):
    path = tmp_path / "combination.json"
    wanted = ZScores({"entropy": 1.0}, {"entropy": -0.25}, {"entropy": 0.5})
    write_combination(path, wanted)
    assert read_combination(path) == wanted
    good = json.loads(path.read_text("utf-8"))
    for change in (
        {"schema": "x"},
        {"means": {}},
        {"means": {"entropy": "0"}},
        {"means": [1]},
        {"more": 1},
    ):
        path.write_text(json.dumps(good | change), "utf-8")
        with pytest.raises(InputError, match=str(path)):
            read_combination(path)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "tokenizer.model",
        "selector.json.gz",
        "calibration.jsonl.gz",
        "combination.json",
        "config.json",
    ],
)
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_bomb_is_refused(copied, tmp_path, name, kind):
    bomb = Bomb(tmp_path / "marker")
    if kind == "torch":
        torch.save(bomb, copied / name)
    else:
        (copied / name).write_bytes(pickle.dumps(bomb))
    with pytest.raises(InputError, match=str(copied / name)):
        read_model_folder(copied)
    assert not bomb.marker.exists()


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "weights.bin"])
def test_pickled_weights_are_never_read(copied, tmp_path, name):
    bomb = Bomb(tmp_path / "marker")
    torch.save(bomb, copied / name)
    read_model_folder(copied)  # beside the weights it is left alone
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"{name} may hold pickled.*not read"):
        read_model_folder(copied)
    assert not bomb.marker.exists()


@pytest.mark.parametrize(
    "tag", ["!apply:os.system", "!!python/object/apply:os.system"]
)
def test_a_policy_that_would_be_executed_is_refused(copied, tmp_path, tag):
    path = copied / "policies/entropy.naive.yaml"
    marker = tmp_path / "marker"
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
        content = json.loads(good) | {"auto_map": {"AutoModel": "evil.Model"}}
        path.write_text(json.dumps(content), "utf-8")
        with pytest.raises(InputError, match=f"{path}, key auto_map"):
            read_model_folder(folder)
        path.unlink()
        with pytest.raises(InputError, match=f"{path}: there is no such file"):
            read_model_folder(folder)
        path.write_text(good, "utf-8")
    read_model_folder(folder)
