"""Fixtures of the tests of reports.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest

from speechbrain_ee.evaluation import page, report


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure is drawn, which is most of a report's time.

    For tests of what stands beside them.
    """
    for module in (report, page):
        for name in vars(module).copy():
            if name.startswith("draw_"):
                monkeypatch.setattr(module, name, lambda *given: None)
        monkeypatch.setattr(
            module, "figure_bytes", lambda figure, kind: b"<svg></svg>"
        )
