"""An error in a handler is never taken for a fault of the request."""

from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from connectors.http.connections import _Connection


def answered(expected: str, unsendable: str) -> tuple[int, list[str]]:
    """Return the status of the answer to a request with this `Expect`, if a handler fails with text that cannot be sent; and what
    the log has.
    """
    connection: Any = SimpleNamespace(_unauthenticated=SimpleNamespace(malformed=lambda *_: None))
    request: Any = SimpleNamespace(headers={"Expect": expected}, writer=SimpleNamespace(output_size=0))
    with pytest.raises(UnicodeEncodeError) as error:
        unsendable.encode()
    with structlog.testing.capture_logs() as logged:
        answer = _Connection.handle_error(connection, request, 500, error.value)
    return answer.status, [line["event"] for line in logged]


def test_only_the_expectation_itself_is_a_wrong_expectation() -> None:
    """curl writes `Expect: 100-continue` for each large body: an error of ours was then a 417, and not in the log."""
    assert answered("\udcff", "Unknown Expect: \udcff") == (417, [])
    assert answered("100-continue", "model \ud800") == (500, ["request_failed"])
