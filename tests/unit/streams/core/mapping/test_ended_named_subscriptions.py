"""A mapping may name a subscription; one that has ended finally pays for nothing, so that a later mapping may pay."""

import msgspec

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import SECOND_US
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.delivery.restamp import restamp_decision
from streams.core.mapping.held_reasons import ENDED, NO_CHARGE
from streams.core.mapping.resolve import Target, resolve
from streams.core.mapping.subscription_choice import Choice, named

T = 1_790_812_800 * SECOND_US
HOUR = 3600 * SECOND_US
OLD = Period("old", T, T + HOUR, charged=("ai",))
NEW = Period("new", T + 2 * HOUR, None, charged=("ai",))
ORG = OrgRecord("org", periods=(OLD, NEW))


def customer(*versions: tuple[int, str]) -> CustomerRecord:
    created = tuple(MappingVersion(at, "org", "t", external_subscription_id=name) for at, name in versions)
    return CustomerRecord("ann", created, T, T)


def test_an_ended_subscription_in_a_mapping_pays_for_nothing() -> None:
    assert named(ORG, "old", "ai", T + 30) == Choice("old")
    assert named(ORG, "old", "ai", T + HOUR + SECOND_US) == Choice("", ENDED)
    again = OrgRecord("org", periods=(OLD, msgspec.structs.replace(OLD, started_at=T + 3 * HOUR, terminated_at=None)))
    assert named(again, "old", "ai", T + 4 * HOUR) == Choice("old"), "it lives on under the same id"
    assert named(ORG, "old", "ai") == Choice("old"), "the seal asks"


def test_the_later_mapping_pays_for_usage_held_under_the_ended_subscription() -> None:
    late, at_us = T + 4 * HOUR, T + HOUR + 60 * SECOND_US
    alone = customer((T, "old"))
    assert resolve(alone, at_us, "end_user", {"org": ORG}, "ai", late) == Target("org", "", ENDED)
    for later in ("", "new"):
        fixed = customer((T, "old"), (T + 3 * HOUR, later))
        assert resolve(fixed, at_us, "end_user", {"org": ORG}, "ai", late) == Target("org", "new")


def test_an_event_of_calls_is_owed_under_an_earlier_event_code_too() -> None:
    """`LAGO_EVENT_CODE` was changed while it waited: it is not given to a plan that does not charge its own code."""
    moment = f"{(T + 60 * SECOND_US) // SECOND_US}.000"
    for cents, refused in (("900", NO_CHARGE), ("0", "")):
        event = LagoEvent("t1", "old", "other_code", moment, cents, {"org_id": "org"})
        result = restamp_decision(
            msgspec.json.encode(event), {"org": ORG}, OutOfPeriodPolicy.SHIFT, T + 30 * SECOND_US, "ai"
        )
        assert result.refused == refused
