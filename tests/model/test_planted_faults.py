"""The model can fail: each of these faults, planted in the product, is found by it within some hundred histories, the rarest within two thousand."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.model.faults import FAULTS
from tests.model.history import History
from tests.model.strategies import anything
from tests.model.test_owed import compare

#: Histories until a fault must be found; always the same ones.
LIMIT = 2000


class Found(Exception):
    """Product and model differ."""


@settings(
    max_examples=LIMIT,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(anything())
def _search(history: History) -> None:
    try:
        compare(history)
    except AssertionError as difference:
        raise Found from difference


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    with pytest.raises(Found):
        _search()
