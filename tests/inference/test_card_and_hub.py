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
from speechbrain_ee.inference.folder.model_folder import (
    HUB_FILES,
    fetch_folder,
    model_card,
    push_to_hub,
    read_model_folder,
)
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


def test_measured_is_what_exits_and_policies_do_on_the_trace(
    run_of, folder, card
):
    trace, rows = run_of("digits").test, table(card, "Measured")
    words, depth = trace.words_N.sum(), len(folder.exit_layers)
    taken = {f"exit {k + 1}": [k] * len(trace) for k in range(depth)}
    assert len(folder.policies) == 4
    for name, policy in folder.policies.items():
        scores_NE = get_criterion(policy.criterion).scores(trace.evidence)
        taken[name] = []
        for scores_E in scores_NE:
            early = zip(scores_E, policy.thresholds)
            stops = [k for k, (s, limit) in enumerate(early) if s >= limit]
            taken[name].append(stops[0] if stops else depth - 1)
    assert rows.keys() == taken.keys()
    for name, choice_N in taken.items():
        pairs = list(zip(trace.records, choice_N))
        errors = sum(r.exits[k].errors for r, k in pairs)
        layers = sum(r.exits[k].layer for r, k in pairs)
        macs = sum(r.exits[k].macs for r, k in pairs) / len(trace)
        wer, layer, mega = rows[name]
        assert wer == f"{100 * errors / words:.2f}"
        assert layer == f"{layers / len(trace):.2f}"
        if name not in folder.policies:  # these cost something, too
            assert mega == f"{macs / 1e6:.0f}"


def test_parameters_are_those_of_the_truncated_models(folder, card):
    counts = [float(row[1]) for row in table(card, "Architecture").values()]
    assert counts == sorted(counts)
    model = folder.model
    every = sum(p.numel() for p in model.truncated(6).parameters())
    # of the other exits' heads nothing is counted
    modules = [m for k in range(1, 6) for m in model.heads.parts(k)]
    others = sum(p.numel() for m in modules for p in m.parameters())
    assert counts[-1] == pytest.approx((every - others) / 1e6, abs=0.01)


def test_front_matter_is_yaml_and_the_code_is_code(folder, card):
    assert card == model_card(folder)
    found = yaml.safe_load(card.split("---\n", 2)[1])
    assert found["pipeline_tag"] == "automatic-speech-recognition"
    assert found["library_name"] == "speechbrain-ee"
    code = "".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    compile(code, "card", "exec")
    ((module, name),) = re.findall(r"(?m)^from (\S+) import (\w+)$", code)
    assert hasattr(__import__(module, fromlist=[name]), name)


def test_the_default_policy_is_named_and_explained(folder):
    chosen = {"default_policy": "entropy.ltt", "default_reason": "saves half."}
    card = model_card(replace(folder, **chosen))
    assert "Default: `entropy.ltt`, which saves half.\n" in card
    assert "| `entropy.ltt` (default) | " in card
    assert "* `entropy.ltt` (default): entropy, wer=+50%" in card
    none = {"default_policy": None, "default_reason": "nothing saves."}
    card = model_card(replace(folder, **none))
    assert "Default: `last`, the last exit: nothing saves.\n" in card
    bare = replace(folder, **none, policies={}, measured=(), facts={})
    card = model_card(bare)
    for title in ("(default)", "## Policies", "## Measured", "## Data"):
        assert title not in card
    assert "No test set was measured" in card


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_a_card_and_known_files(exported, system):
    path = exported(system)
    folder = read_model_folder(path)
    card = model_card(folder)
    assert card.count(f"# {folder.name}") == 1
    assert ("attention decoder" in card) == (system == "digits_aed")
    assert ("wav2vec2" in card) == (system == "tiny_ssl")
    assert "None" not in card.replace("None: a word", "")
    known = {each for pattern in HUB_FILES for each in path.glob(pattern)}
    assert known == {each for each in path.rglob("*") if each.is_file()}


def test_only_whole_folders_are_published(copied, monkeypatch):
    calls = []
    fake = SimpleNamespace(
        create_repo=lambda *a, **k: calls.append(("create", a, k)),
        upload_folder=lambda **k: calls.append(("upload", k)) or "there",
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert push_to_hub(copied, "me/digits", private=True) == "there"
    (_, name, how), (_, upload) = calls
    assert name == ("me/digits",) and how["private"] and how["exist_ok"]
    assert upload["folder_path"] == str(copied)
    calls.clear()
    (copied / "tokenizer.model").unlink()
    with pytest.raises(InputError, match="tokenizer.model"):
        push_to_hub(copied, "me/digits")
    assert calls == []


def test_fetching_takes_known_files_alone(tmp_path, monkeypatch):
    seen = {}

    def fetch(name, local_dir, allow_patterns):
        seen.update(name=name, where=local_dir, what=allow_patterns)
        return str(tmp_path)

    fake = SimpleNamespace(snapshot_download=fetch)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert fetch_folder("me/digits", tmp_path / "x") == tmp_path
    assert (seen["name"], seen["where"]) == ("me/digits", str(tmp_path / "x"))
    assert not any(".pt" in name or ".py" in name for name in seen["what"])
    for name in ("me", "./me/x", "a/b/c", "~/x"):
        with pytest.raises(InputError, match="not a hub name"):
            fetch_folder(name)


def test_what_the_hub_lacks_or_refuses_is_said(copied, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("401 Unauthorized. Read the manual")

    fake = SimpleNamespace(create_repo=refuse, snapshot_download=refuse)
    for package, said in ((None, "pip install"), (fake, "401 Unauthorized")):
        monkeypatch.setitem(sys.modules, "huggingface_hub", package)
        with pytest.raises(InputError, match=said):
            push_to_hub(copied, "me/digits")
        with pytest.raises(InputError, match=said):
            fetch_folder("me/digits")
