"""An event belongs to at most one of two deployments, by its id and by the deployment that it names."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import Window
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent
from schemas.wire import Metered
from streams.core.delivery.after_end import AGAIN
from streams.core.metering.event_owner import _part_of, belongs_to, deployment_named
from streams.core.metering.lago_event import event_of, part_prefix
from tests.unit.streams.core.metering.test_lago_event import END, window

TOPIC_ID = "hLq-0-7_AAAAAAAAAAAAAA"


@pytest.mark.parametrize(
    ("deployment", "name", "own"),
    [
        ("a", f"a-{TOPIC_ID}-0-7", True),
        ("a", f"a-{TOPIC_ID}-11-70-again-again", True),
        ("a", f"a-b-{TOPIC_ID}-0-7", False),
        ("a-b", f"a-b-{TOPIC_ID}-0-7", True),
        ("a-b", f"a-{TOPIC_ID}-0-7", False),
        ("a.b", f"a-b-{TOPIC_ID}-0-7", False),
        ("a", f"a-{TOPIC_ID}-0", False),
        ("a", f"a-{TOPIC_ID}-0-7-", False),
        ("a", f"a-{TOPIC_ID}-0-7\n", False),
        ("a", f"a-{TOPIC_ID[:-1]}-0-7", False),
        ("a", "0123456789abcdef" * 2, None),
        ("a", "0123456789abcdef" * 2 + "-again", None),
        ("a", "0123456789ABCDEF" * 2, False),
        ("", f"-{TOPIC_ID}-0-7", True),
    ],
)
def test_a_deployment_recognises_its_own_parts_beside_one_with_a_longer_name(
    deployment: str, name: str, *, own: bool | None
) -> None:
    assert belongs_to(deployment, name) is own


NAMES = st.from_regex(r"[a-z]{1,3}(-[A-Za-z0-9_]{1,24}){0,2}", fullmatch=True)
WINDOWS = st.sampled_from(
    [
        window(),
        window(identity=b"\x01\xab" * 8, length_us=0, start_us=END),
        window(metered=Metered("org", "t", "seats", END, {"deployment": "b"}), identity=b"i" * 16, cost=Decimal(0)),
    ]
)


@given(NAMES, NAMES | st.from_regex(r"[A-Za-z0-9_-]{1,30}", fullmatch=True), WINDOWS, st.integers(0, 2))
def test_each_event_belongs_to_its_own_deployment_or_names_none_but_never_to_two(
    sealed_by: str, more: str, one: Window, again: int
) -> None:
    """The sink depends on this, which refuses to post another deployment's events, and `recover`, which takes only its
    own.
    """
    policy = replace(MeterPolicy(), deployment=sealed_by)
    event = event_of(one, part_prefix(sealed_by, TOPIC_ID, 3), END, policy)
    name, named = event.transaction_id + AGAIN * again, deployment_named(event)
    whole = belongs_to(sealed_by, name, named)
    assert whole is (None if one.metered else True)
    for other in {f"{sealed_by}-{more}", more, sealed_by[:-1], f"{sealed_by}-{TOPIC_ID}"} - {sealed_by}:
        assert belongs_to(other, name, named) is (None if one.metered else False)


def test_only_the_id_of_a_single_call_names_no_deployment() -> None:
    """Therefore an event of a single call names it; such an event of an older release may be of any deployment."""
    old = LagoEvent("01ab" * 8, "sub", "ai_usage", "1", "1", {"org_id": "org"})
    assert belongs_to("a", old.transaction_id, deployment_named(old)) is None


def test_names_of_deployments_take_a_bounded_amount_of_memory() -> None:
    """Any writer to a topic can invent names of deployments."""
    for number in range(100):
        belongs_to(f"d{number}", "no part")
    assert _part_of.cache_info().currsize < 100
