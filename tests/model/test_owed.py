"""The product bills what the model says is owed, whatever happens."""

import os
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings

from tests.model.history import History
from tests.model.owed import owed
from tests.model.product import live
from tests.model.strategies import anything

EXAMPLES = int(os.environ.get("OWED_EXAMPLES", "200"))


def told(history: History) -> str:
    """A history for people."""
    return "\n".join(f"{datetime.fromtimestamp(step.at, UTC):%m-%d %H:%M:%S}  {step}" for step in history)


def compare(history: History) -> None:
    """Raises: AssertionError: they differ."""
    assert vars(live(history)) == vars(owed(history)), told(history)


@settings(max_examples=EXAMPLES, derandomize=EXAMPLES == 200, deadline=None, suppress_health_check=list(HealthCheck))
@given(anything())
def test_what_is_billed_is_what_is_owed(history: History) -> None:
    compare(history)
