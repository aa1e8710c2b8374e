"""The documentation names what there is.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from pathlib import Path

import pytest

from speechbrain_ee.exits.criteria import criterion_names

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]) + [
    ROOT / "recipes" / "LibriSpeech" / "EarlyExit" / "README.md"
]


@pytest.mark.parametrize("name", criterion_names())
def test_every_criterion_is_described(name: str) -> None:
    """Each has its place in the table of criteria."""
    page = (ROOT / "docs" / "exit-selection.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert name in named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and image is a file of the repository."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
