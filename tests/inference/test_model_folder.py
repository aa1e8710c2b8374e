"""Inference folders: what is written is what is read, whole or not at all.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder import model_folder
from speechbrain_ee.inference.folder.model_folder import (
    read_model_folder,
    write_model_folder,
)
from speechbrain_ee.inference.folder.training_run import export_run
from speechbrain_ee.inference.folder.weights import load_weights, write_weights
from tests.helpers import noise, padded, tiny_model
from tests.inference.runs import SYSTEMS, log_probs, same, write_run


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("system", [*SYSTEMS, "whisper_ctc"])
def test_model_of_the_folder_is_the_trained_one(run_of, exported, system):
    run, folder = run_of(system), read_model_folder(exported(system))
    trained, loaded = run.model.state_dict(), folder.model.state_dict()
    kept = [n for n in trained if not n.startswith("encoder.feature_aug")]
    assert sorted(loaded) == sorted(kept)
    assert all(torch.equal(loaded[name], trained[name]) for name in loaded)
    assert same(log_probs(folder.model), log_probs(run.model))
    assert folder.exit_layers == run.model.exit_layers
    assert not folder.model.training
    assert {p.dtype for p in folder.model.parameters()} == {torch.float32}
    for name, content in files(folder.path).items():
        if name.endswith(".gz"):
            content = gzip.decompress(content)
        assert str(run.folder.parent).encode() not in content, name
        assert not re.search(rb"speaker\d", content), name


def test_reading_and_writing_again_changes_no_byte(run_of, exported, tmp_path):
    folder = read_model_folder(exported("digits"))
    card = (folder.path / "README.md").read_text("utf-8")
    again = write_model_folder(tmp_path / "again", folder, card)
    assert files(again) == files(folder.path)
    policies = [
        f"policies/{criterion}.{method}.yaml"
        for criterion in ("entropy", "learned")
        for method in ("ltt", "naive")
    ]
    assert sorted(files(again)) == [
        *("README.md", "calibration.jsonl.gz", "combination.json"),
        *("config.json", "model.safetensors", *policies),
        *("selector.json.gz", "tokenizer.model"),
    ]
    # The calibration data: errors and scores, but no words.
    trace, dev = folder.calibration, run_of("digits").dev
    assert trace.errors_NE.tolist() == dev.errors_NE.tolist()
    assert trace.words_N.tolist() == dev.words_N.tolist()
    assert trace.macs_NE.tolist() == dev.macs_NE.tolist()
    for name in ("entropy", "learned"):
        wanted = dev.evidence_NE(name).tolist()
        assert trace.evidence_NE(name).tolist() == wanted
    assert {word for r in trace.records for word in r.ref.split()} == {"-"}


FRESH = """
import hashlib, socket, sys
def refuse(*_, **__):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = refuse
import torch
from speechbrain_ee.inference.folder.model_folder import read_model_folder
folder = read_model_folder(sys.argv[1])
wavs, lens = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    outputs = folder.model(wavs, lens)
for output in outputs:
    data = output.log_probs_BTV.numpy().tobytes()
    print(hashlib.sha256(data).hexdigest())
"""


@torch.no_grad()
def test_loads_in_a_fresh_process_without_network(exported, tmp_path):
    wavs, lens = padded([noise(16000), noise(9000)])
    torch.save((wavs, lens), tmp_path / "batch.pt")
    command = [sys.executable, "-c", FRESH, exported("tiny_ssl")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [*map(str, command), str(tmp_path / "batch.pt")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        outputs = read_model_folder(exported("tiny_ssl")).model(wavs, lens)
    finally:
        torch.set_num_threads(threads)
    data = [o.log_probs_BTV.numpy().tobytes() for o in outputs]
    assert done.stdout.split() == [hashlib.sha256(d).hexdigest() for d in data]


def test_a_folder_that_cannot_be_finished_leaves_the_old_one(
    copied, monkeypatch
):
    folder, before = read_model_folder(copied), files(copied)

    def fail(*_):
        raise InputError("disk full")

    monkeypatch.setattr(model_folder, "write_policy", fail)
    with pytest.raises(InputError, match="disk full"):
        write_model_folder(copied, replace(folder, name="other"))
    assert files(copied) == before
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_an_inference_folder_is_replaced_and_nothing_else(copied, tmp_path):
    folder = read_model_folder(copied)
    stale = copied / "policies/oracle.naive.yaml"
    stale.write_text("x")
    write_model_folder(copied, replace(folder, name="other"))
    assert read_model_folder(copied).name == "other" and not stale.exists()
    empty, other, file = (tmp_path / n for n in ("empty", "thesis", "file"))
    empty.mkdir()
    write_model_folder(empty, folder)  # an empty one may be filled
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    file.write_text("x")
    for path in (other, file):
        with pytest.raises(InputError, match=f"{path}: something else"):
            write_model_folder(path, folder)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_single_exit_models_need_no_policy(tmp_path):
    run = write_run(tmp_path / "run", exit_layers=[2])
    folder = read_model_folder(export_run(run.folder, tmp_path / "out"))
    assert folder.policies == {} and folder.default_policy is None
    assert same(log_probs(folder.model), log_probs(run.model))


@pytest.mark.parametrize("tied", [False, True])
def test_tied_parameters_are_written_once_and_stay_tied(tmp_path, tied):
    def model(seed):
        made = tiny_model(seed=seed)
        if tied:  # two names for one parameter
            one, two = made.heads.projections
            two.weight = one.weight
        return made

    one, two = model(0), model(1)
    write_weights(tmp_path / "w", one)
    load_weights(tmp_path / "w", two)
    assert same(log_probs(one), log_probs(two))
    header = (tmp_path / "w").read_bytes()
    assert (b"heads.projections.1.weight" in header) != tied
    shared = two.heads.projections
    assert (shared[0].weight is shared[1].weight) == tied


def test_statistics_of_the_corpus_come_along(tmp_path):
    def model(seed):
        made = tiny_model(seed=seed)
        made.encoder.features.normalize.norm_type = "global"
        return made

    one, two = model(0), model(1)
    with pytest.raises(InputError, match="features.normalize: its statistics"):
        write_weights(tmp_path / "w", one)
    norm = one.encoder.features.normalize
    norm.count, norm.glob_mean = 3, torch.linspace(-1, 1, 16)
    norm.glob_std = torch.linspace(1, 2, 16)
    write_weights(tmp_path / "w", one)
    load_weights(tmp_path / "w", two)
    assert same(log_probs(one), log_probs(two))
    # a model without them does not take them, and the other way round
    with pytest.raises(InputError, match="normalize.count .* a tensor of it"):
        load_weights(tmp_path / "w", tiny_model())
    write_weights(tmp_path / "w", tiny_model())
    with pytest.raises(InputError, match="normalize.count is missing"):
        load_weights(tmp_path / "w", two)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.9, 0.9999])
def test_cut_weights_are_refused(copied, share):
    path = copied / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=f"{path}: not a whole safetensors"):
        read_model_folder(copied)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"d_model": 32}, "torch.float32 of shape .* not torch.float32"),
        ({"num_layers": 6, "exit_layers": (2, 6)}, "not a tensor of it"),
        ({"exit_layers": (2,)}, "is missing"),
        (None, "is torch.float16 of shape .* not torch.float32"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, options, said):
    other = tiny_model(**options or {})
    write_weights(tmp_path / "w", other.half() if options is None else other)
    model = tiny_model()
    before = log_probs(model)
    with pytest.raises(InputError, match=f"{tmp_path / 'w'}: .*{said}"):
        load_weights(tmp_path / "w", model)
    assert same(log_probs(model), before)  # nothing was half loaded
