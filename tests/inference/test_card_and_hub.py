"""Model cards, whose tables are what the traces say, and folders on a hub that is
not there.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.inference.folder import card as hub
from speechbrain_ee.inference.folder.card import model_card
from speechbrain_ee.inference.folder.model_folder import read_model_folder
from tests.inference.runs import SYSTEMS


def table(card: str, title: str) -> dict[str, list[str]]:
    """The rows of a section's table by their first cell."""
    section = card.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| (.*) \|$", section)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    names = [row[0].removesuffix(" (default)").strip("`") for row in cells[2:]]
    return dict(zip(names, (row[1:] for row in cells[2:]), strict=True))


@pytest.fixture(scope="module")
def folder(exported):
    return read_model_folder(exported("digits"))


@pytest.fixture(scope="module")
def card(folder):
    return (folder.path / "README.md").read_text("utf-8")


def test_the_card_is_the_folder_s_own(folder, card):
    assert card == model_card(folder)


def test_front_matter_is_yaml(card):
    _, head, _ = card.split("---\n", 2)
    found = yaml.safe_load(head)
    assert found["pipeline_tag"] == "automatic-speech-recognition"
    assert found["library_name"] == "speechbrain-ee"


def test_exits_have_the_error_rates_of_the_trace(run_of, card):
    trace, rows = run_of("digits").test, table(card, "Measured")
    for place, layer in enumerate(trace.header.exit_layers):
        errors = sum(r.exits[place].errors for r in trace.records)
        words = sum(len(r.ref.split()) for r in trace.records)
        macs = sum(r.exits[place].macs for r in trace.records) / len(trace)
        assert rows[f"exit {place + 1}"] == [
            f"{100 * errors / words:.2f}",
            f"{layer:.2f}",
            f"{macs / 1e6:.0f}",
        ]


def test_policies_have_what_they_do_on_the_trace(run_of, folder, card):
    trace, rows = run_of("digits").test, table(card, "Measured")
    assert len(folder.policies) == 4
    for name, policy in folder.policies.items():
        scores_NE = get_criterion(policy.criterion).scores(trace.evidence)
        errors, layers = 0, 0
        for record, scores_E in zip(trace.records, scores_NE):
            early = zip(scores_E, policy.thresholds)
            stops = [k for k, (s, limit) in enumerate(early) if s >= limit]
            place = stops[0] if stops else len(scores_E) - 1
            errors += record.exits[place].errors
            layers += record.exits[place].layer
        words = 4 * len(trace)
        assert rows[name][:2] == [
            f"{100 * errors / words:.2f}",
            f"{layers / len(trace):.2f}",
        ]


def test_parameters_are_those_of_the_truncated_models(folder, card):
    rows = table(card, "Architecture")
    counts = [float(row[1]) for row in rows.values()]
    assert counts == sorted(counts)
    last = sum(p.numel() for p in folder.model.truncated(6).parameters())
    # of the other exits' heads nothing is counted
    heads = folder.model.heads
    others = sum(
        p.numel()
        for k in range(1, 6)
        for m in heads.parts(k)
        for p in m.parameters()
    )
    assert counts[-1] == pytest.approx((last - others) / 1e6, abs=0.01)


def test_the_code_of_the_card_is_code(card):
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "card", "exec")
    pattern = r"(?m)^from (\S+) import (\w+)$"
    for module, name in re.findall(pattern, "".join(blocks)):
        assert hasattr(__import__(module, fromlist=[name]), name)


def test_the_default_policy_is_named_and_explained(folder):
    chosen = {"default_policy": "entropy.ltt", "default_reason": "saves half."}
    card = model_card(replace(folder, **chosen))
    assert "Default: `entropy.ltt`, which saves half.\n" in card
    assert "| `entropy.ltt` (default) | " in card
    assert "* `entropy.ltt` (default): entropy, wer=+50%" in card
    none = {"default_policy": None, "default_reason": "nothing saves."}
    assert "Default: `last`, the last exit: nothing saves.\n" in model_card(
        replace(folder, **none)
    )
    bare = model_card(replace(folder, **none, policies={}))
    assert "(default)" not in bare and "## Policies" not in bare


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_a_card(exported, system):
    folder = read_model_folder(exported(system))
    card = model_card(folder)
    assert card.count(f"# {folder.name}") == 1
    assert ("attention decoder" in card) == (system == "digits_aed")
    assert ("wav2vec2" in card) == (system == "tiny_ssl")
    assert "None" not in card.replace("None: a word", "")


def test_without_test_sets_the_card_says_so(folder):
    card = model_card(replace(folder, measured=(), facts={}))
    assert "No test set was measured" in card
    assert "## Measured" not in card and "## Data" not in card


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
