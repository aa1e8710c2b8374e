"""Fixtures of the tests of reports.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest

from speechbrain_ee.evaluation import page as page_module
from speechbrain_ee.evaluation import report as report_module


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which is most of a report's time.

    For tests of what stands beside them.
    """
    for module in (report_module, page_module):
        monkeypatch.setattr(
            module, "figure_bytes", lambda figure, kind: b"<svg></svg>"
        )
