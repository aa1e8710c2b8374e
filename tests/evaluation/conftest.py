"""Fixtures of the tests of reports.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest

from speechbrain_ee.evaluation import figures


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure is drawn, which is most of a report's time."""
    for name in vars(figures).copy():
        if name.startswith("draw_"):
            monkeypatch.setattr(figures, name, lambda *given: None)
    monkeypatch.setattr(figures, "figure_bytes", lambda *given: b"<svg></svg>")
