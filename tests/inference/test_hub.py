"""Publishing and fetching folders, with a hub that is not there.

Authors
 * The speechbrain-ee contributors 2026
"""

import sys
from types import SimpleNamespace

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder import hub
from tests.inference.runs import (
    SYSTEMS,
)


def test_only_whole_folders_are_published(copied, monkeypatch):
    calls = []
    fake = SimpleNamespace(
        create_repo=lambda *a, **k: calls.append(("create", a, k)),
        upload_folder=lambda **k: calls.append(("upload", k)) or "there",
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert hub.push_to_hub(copied, "me/digits", private=True) == "there"
    (_, name, how), (_, upload) = calls
    assert name == ("me/digits",) and how["private"] and how["exist_ok"]
    assert upload["folder_path"] == str(copied)
    calls.clear()
    (copied / "tokenizer.model").unlink()
    for name, said in {"me/digits": "tokenizer.model"}.items():
        with pytest.raises(InputError, match=said):
            hub.push_to_hub(copied, name)
    assert calls == []


def test_the_hub_s_files_are_those_of_a_folder(exported):
    for system in SYSTEMS:
        folder = exported(system)
        known = {path for pattern in hub.FILES for path in folder.glob(pattern)}
        assert known == {path for path in folder.rglob("*") if path.is_file()}


def test_fetching_takes_known_files_alone(tmp_path, monkeypatch):
    seen = {}

    def fetch(name, local_dir, allow_patterns):
        seen.update(name=name, where=local_dir, what=allow_patterns)
        return str(tmp_path)

    fake = SimpleNamespace(snapshot_download=fetch)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert hub.fetch_folder("me/digits", tmp_path / "x") == tmp_path
    assert seen["name"] == "me/digits"
    assert seen["where"] == str(tmp_path / "x")
    assert not any(".pt" in name or ".py" in name for name in seen["what"])
    for name in ("me", "./me/x", "a/b/c", "~/x"):
        with pytest.raises(InputError, match="no hub name"):
            hub.fetch_folder(name)


def test_without_the_package_the_error_says_what_to_install(
    copied, monkeypatch
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: hub.push_to_hub(copied, "me/digits"),
        lambda: hub.fetch_folder("me/digits"),
    ):
        with pytest.raises(InputError, match="pip install huggingface_hub"):
            call()


def test_what_the_hub_refuses_is_an_input_error(copied, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("401 Unauthorized. Read the manual")

    fake = SimpleNamespace(create_repo=refuse, snapshot_download=refuse)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    with pytest.raises(InputError, match="401 Unauthorized"):
        hub.push_to_hub(copied, "me/digits")
    with pytest.raises(InputError, match="401 Unauthorized"):
        hub.fetch_folder("me/digits")
