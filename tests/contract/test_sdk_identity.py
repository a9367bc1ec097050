"""The user and org of a request come from the service's authentication, never from a header."""

from typing import Any

import pytest

from meterbridge_sdk import get_current_org


class _User:
    org_id = "org_1"
    user_id = 7


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"user": {"org_id": "org_1", "id": "user_1"}}, ("org_1", "user_1")),
        ({"state": {"user": {"org_id": "org_1", "id": "user_1"}}}, ("org_1", "user_1")),
        ({"state": {"user": {"org_id": "org_1", "user_id": 7}}}, ("org_1", "7")),
        ({"user": _User()}, ("org_1", "7")),
        ({"user": {"org_id": " org_1 "}}, ("org_1", None)),
        ({"user": {"org_id": 12, "id": 0}}, ("12", "0")),
        ({"user": {"org_id": " "}}, None),
        ({"user": {"id": "user_1"}}, None),
        ({"headers": {"X-Org": "org_1"}, "state": {}}, None),
        ({}, None),
    ],
)
def test_the_org_is_that_of_the_authentication_and_never_of_a_header(request_: Any, expected: Any) -> None:
    found = get_current_org(request_)
    assert (None if found is None else (found.org_id, found.user_id)) == expected
