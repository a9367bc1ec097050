"""A number in the body of `usage/record` is billed with all its digits, as the text of the same number is."""

import pytest

from connectors.api.org_usage import UsageBody
from connectors.billing.metered_events import metered
from connectors.http.problem import Problem
from connectors.http.request_models import parsed
from schemas.errors import Rejected


def recorded(number: str) -> str:
    body = f'{{"event_code":"calls","transaction_id":"t","timestamp":1700000000.25,"properties":{{"n":{number}}}}}'
    usage = parsed(UsageBody, body.encode())
    assert isinstance(usage, UsageBody)
    event = metered("org", usage.event_code, usage.transaction_id, usage.properties, usage.timestamp, 1)
    assert event.at_us == 1_700_000_000_250_000
    return event.properties["n"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("12345678901234567.89", "12345678901234567.89"),
        ("100000000000000000000000.5", "100000000000000000000000.5"),
        ("9007199254740993.0", "9007199254740993"),
        ("1000000000000000000000001", "1000000000000000000000001"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("1e-7", "0.0000001"),
        ("1E5", "100000"),
        ("-0.0", "0"),
    ],
)
def test_no_digit_of_a_number_is_changed(number: str, text: str) -> None:
    assert recorded(number) == text


@pytest.mark.parametrize(
    ("number", "reason"),
    [("1e400", "number_out_of_range"), ("-1e-400", "number_out_of_range"), (f"1e{'9' * 30}", "bad_property")],
)
def test_a_number_that_lago_cannot_hold_is_refused(number: str, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        recorded(number)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("number", "reason"), [("NaN", "not_json"), ("9" * 5000, "not_json"), ("[1]", "invalid_fields")]
)
def test_what_is_no_number_of_json_is_refused(number: str, reason: str) -> None:
    with pytest.raises(Problem) as refused:
        recorded(number)
    assert refused.value.reason == reason
