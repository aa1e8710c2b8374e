"""A folder is replaced as a whole, and only where nothing else is lost.

An export deleted any folder with a `config.json` and a `tokenizer.model`; an
interrupt between its two renames deleted the old model; graphs were written
over those of another model, whose policies and language model stayed.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace
from pathlib import Path

import pytest

from speechbrain_ee.data.demo.corpus import refuse_foreign
from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.model_folder import (
    ModelFolder,
    read_model_folder,
    write_model_folder,
)
from speechbrain_ee.inference.folder.training_run import run_folder
from tests.inference.runs import write_run
from tests.soak import replacing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A model with policies, a selector and a language model."""
    run = write_run(tmp_path_factory.mktemp("run") / "run", exit_layers=[1, 2])
    return run_folder(run.folder)


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize(
    "config",
    ['{"model_type": "llama"}', "{", '{"schema": "early-exit-model/9"}'],
)
def test_a_language_model_of_others_is_not_deleted(folder, tmp_path, config):
    """A schema is what tells a folder; a later version's is not ours, either."""
    path = tmp_path / "llama"
    path.mkdir()
    (path / "config.json").write_text(config, "utf-8")
    (path / "tokenizer.model").write_bytes(b"precious")
    before = contents(path)
    with pytest.raises(InputError, match=f"{path}: something else"):
        write_model_folder(path, folder)
    assert contents(path) == before


@pytest.mark.parametrize(
    "name", ["notes.txt", "policies/mine.yaml", ".git/HEAD", "link"]
)
def test_a_file_that_no_export_writes_stops_it(folder, tmp_path, name):
    path = write_model_folder(tmp_path / "model", folder)
    (path / name).parent.mkdir(exist_ok=True)
    if name == "link":
        (path / name).symlink_to(tmp_path)
    else:
        (path / name).write_text("mine", "utf-8")
    before = contents(path)
    with pytest.raises(InputError, match=f"holds {name}"):
        write_model_folder(path, replace(folder, name="other"))
    assert contents(path) == before
    (path / name).unlink()
    write_model_folder(path, replace(folder, name="other"))
    assert read_model_folder(path).name == "other"


def test_what_is_put_there_meanwhile_stops_it(folder, tmp_path, monkeypatch):
    path = write_model_folder(tmp_path / "model", folder)
    monkeypatch.setattr(
        "speechbrain_ee.inference.folder.model_folder.write_weights",
        lambda *_: (path / "notes.txt").write_text("mine", "utf-8"),
    )
    with pytest.raises(InputError, match=r"holds notes\.txt"):
        write_model_folder(path, folder)
    assert (path / "notes.txt").read_text("utf-8") == "mine"
    assert (path / "model.safetensors").is_file()


def test_a_note_deep_in_a_demo_corpus_stops_its_rebuild(tmp_path):
    place = tmp_path / "train-clean/9001/1"
    place.mkdir(parents=True)
    (place / "9001-1-0001.flac").write_bytes(b"x")
    (place / "9001-1.trans.txt").write_bytes(b"x")
    refuse_foreign(tmp_path)
    (place / "notes.txt").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"train-clean/9001/1/notes\.txt"):
        refuse_foreign(tmp_path)


@pytest.mark.parametrize("kind", ["plain", "in_two_steps", "model"])
def test_old_or_new_after_a_kill_before_any_step(folder, tmp_path, kind):
    """By a kill or by an interrupt."""
    if kind == "model":
        write = replacing.of_model(folder)
        assert replacing.killed(kind, write, tmp_path, 4, 1).lost == []
        return
    found = replacing.killed(kind, getattr(replacing, kind), tmp_path, 0, 1)
    assert found.lost == []
    assert found.steps > 5 and found.found["old"] and found.found["new"]
    assert found.ends["killed"] and found.ends["interrupted"]


def test_graphs_of_another_model_leave_nothing(folder, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from speechbrain_ee.inference.onnx import export

    def full(*_: object) -> None:
        raise InputError("the disk is full")

    path = export.export_onnx(folder, tmp_path / "graphs", int8=False)
    assert any(name.startswith("policies/") for name in contents(path))
    bare = replace(folder, policies={}, default_policy=None, selector=None)
    export.export_onnx(bare, path, int8=False)
    before = contents(path)
    assert sorted(before) == [
        *("exit_01.onnx", "exit_02.onnx", "onnx.json"),
        *("start.onnx", "tokenizer.model"),
    ]
    monkeypatch.setattr(export, "write_manifest", full)
    with pytest.raises(InputError, match="full"):
        export.export_onnx(folder, path, int8=False)
    assert contents(path) == before
    (path / "policies").mkdir()
    (path / "policies/mine.yaml").write_text("mine", "utf-8")
    with pytest.raises(InputError, match=r"holds policies/mine\.yaml"):
        export.export_onnx(folder, path, int8=False)
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "model.onnx").write_text("thesis", "utf-8")
    for write in (export.export_onnx, export.export_static):
        with pytest.raises(InputError, match="something else"):
            write(folder, other, int8=False)
    one = export.export_static(folder, tmp_path / "graph", int8=True)
    export.export_static(folder, one, int8=False)
    assert sorted(contents(one)) == ["model.onnx", "tokens.txt"]
