"""Held usage is shown with the reason of the present, and not with the one of the moment at which it was counted."""

import time
from typing import Any

import msgspec
import pytest

from connectors.cli.explain import verdict
from connectors.operations.call_stories import EventStory
from connectors.operations.explain import story_of_event
from connectors.operations.held_usage import UnmappedUsage
from connectors.postgres.pool import Database
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.set_mapping import KEPT_VERSIONS
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, usage

NOW_US = time.time_ns() // 1000
PART = f"{PREFIX}7"
MAPPED = MappingVersion(NOW_US - HOUR_US, "org-a", "main")
PAUSED = MappingVersion(NOW_US - HOUR_US, "org-a", "main", is_active=False)
OF_USERS = MappingVersion(NOW_US - HOUR_US, "org-a", "main", id_kind="user")
DELETED = MappingVersion(NOW_US - HOUR_US // 2, "", "", is_active=False, deleted=True)
#: As many versions as are kept, all later than the call.
LATER = tuple(MappingVersion(NOW_US + number * SECOND_US, "org-a", "main") for number in range(KEPT_VERSIONS))
RUNNING = OrgRecord("org-a", periods=(Period("sub", 0),))
UNCHARGED = OrgRecord("org-a", periods=(Period("sub", 0, charged=("other",)),))


def customer(*versions: MappingVersion) -> CustomerRecord:
    return CustomerRecord("acme", versions, NOW_US, NOW_US)


async def seen(url: str, *records: CustomerRecord | OrgRecord, **held: Any) -> tuple[EventStory, list[tuple[str, int]]]:
    """Count a call, then write the records; return what `explain` and `GET /customers/unmapped` say of it."""
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, part=PART, **{"held": "no_mapping", **held}))
        for record in records:
            topic = TOPICS.orgs if isinstance(record, OrgRecord) else TOPICS.customers
            await writer.put(topic, msgspec.json.encode(record), key=_key(record))
    with Database(url, size=1) as database:
        story = await story_of_event(database, PART, "ai_usage")
        listed = await UnmappedUsage(database).unmapped()
    assert story is not None and story.status == "held"
    assert all(one["litellm_customer_id"] == "acme" and one["usd"] == "0.000145" for one in listed)
    return story, [(one["reason"], one["calls"]) for one in listed]


def _key(record: CustomerRecord | OrgRecord) -> bytes:
    return (record.org_id if isinstance(record, OrgRecord) else record.litellm_customer_id).encode()


@pytest.mark.parametrize(
    ("records", "reason", "is_unmapped"),
    [
        ((), "no_mapping", True),
        ((customer(MAPPED),), "no_subscription", False),
        ((customer(MAPPED), UNCHARGED), "no_charge", False),
        ((customer(PAUSED),), "inactive", True),
        ((customer(OF_USERS),), "id_kind_not_mapped", True),
        ((customer(DELETED),), "no_mapping", True),
        ((customer(MAPPED, DELETED),), "no_subscription", False),
        ((customer(*LATER),), "mapping_not_kept", True),
    ],
)
async def test_held_usage_has_the_reason_of_the_present_mapping(
    url: str, records: tuple[CustomerRecord | OrgRecord, ...], reason: str, is_unmapped: bool
) -> None:
    """Earlier all of them were `no_mapping`, and each customer was listed as unmapped."""
    story, listed = await seen(url, *records, **({"held": reason} if reason == "mapping_not_kept" else {}))
    assert (story.reason, story.reason_is_past) == (reason, False)
    assert listed == ([(reason, 1)] if is_unmapped else [])


async def test_a_reason_that_the_tables_do_not_know_is_named_as_one_of_the_past(url: str) -> None:
    """The mapping names a payer now. The ledger releases the usage within seconds, or holds it for something else."""
    story, listed = await seen(url, customer(MAPPED), RUNNING)
    assert (story.reason, story.reason_is_past, listed) == ("no_mapping", True, [])
    assert verdict(story) == "1 call, 0.000145 USD wait."


async def test_usage_of_an_org_waits_for_no_mapping(url: str) -> None:
    story, listed = await seen(url, customer_id="acme", id_kind="org", org_id="acme", held="no_subscription")
    assert (story.reason, story.reason_is_past, listed) == ("no_subscription", True, [])
