"""What Postgres has of topics that hold only state is converted back into the original records."""

from decimal import Decimal

import msgspec
import pytest

from connectors.operations.recovered_records import RECOVERED, dead_letters_of, retries_of, states_of
from connectors.postgres.recover import NewTopics, begin_anew, stored_state
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import to_datetime
from schemas.rates import RateCard
from schemas.records import AuditRecord, DeliveryAttempt, LagoEvent, Manifest
from streams.core.mapping.set_mapping import KEPT_VERSIONS
from tests.support.database import rows
from tests.support.history import PREFIX, TOPICS, TopicRecord
from tests.support.projection import Writer, event, manifest, receipt, usage

DAY_US = 86_400_000_000
STATES = {7: "completed", 10: "written_off", 11: "completed"}
_EARLIER = """
INSERT INTO webhook_delivery_logs (partition, "offset", created_at, direction, event_type, duration_ms, attempt, events)
SELECT partition, "offset" - 3, created_at, direction, event_type, duration_ms, attempt, events FROM webhook_delivery_logs
"""
LOST = "SELECT encode(identity, 'hex') FROM llm_usage_log WHERE decision = 'lost' ORDER BY 1"
CUSTOMER = CustomerRecord(
    "acme",
    (
        MappingVersion(DAY_US, "org", "tenant", updated_at=DAY_US + 1, soon=True),
        MappingVersion(2 * DAY_US, "other", "tenant", "plan", False, "sub", "user", 7, True, False, ("org",)),
    ),
    DAY_US,
    DAY_US + 3,
)
ORG = OrgRecord(
    "acme",
    "Acme",
    "ai",
    "EUR",
    "active",
    (Period("sub", DAY_US, None, "ai", "monthly", DAY_US, "Europe/Berlin", ("ai_usage",)), Period("old", 1, DAY_US)),
    DAY_US + 5,
    "sub",
    {"tokens": 10},
    "a@example.org",
    organization="eu",
)


def record_at(offset: int, value: object) -> TopicRecord:
    return TopicRecord(offset, 1_795_176_000_000, b"acme", msgspec.json.encode(value), ())


async def test_mappings_orgs_and_rates_are_restored_unchanged(database: str) -> None:
    card = RateCard("v1", DAY_US, put_at=5)
    said = [
        AuditRecord(f"{n}", n, "ada", "rates.put", {"rate": "v1"}, after=msgspec.json.encode(one).decode())
        for n, one in enumerate((msgspec.structs.replace(card, put_at=1), card), 1)
    ]
    async with Writer(database) as writer:
        await writer.put(TOPICS.customers, CUSTOMER)
        await writer.put(TOPICS.orgs, ORG)
        await writer.put(TOPICS.audit, *said)
        records = list(states_of(TOPICS, await stored_state(database)))
    assert [record.topic for record in records] == [TOPICS.customers, TOPICS.orgs, TOPICS.rates]
    assert [record.key for record in records] == [b"acme", b"acme", b"v1"]
    kinds = (CustomerRecord, OrgRecord, RateCard)
    read = [msgspec.json.decode(one.value or b"", type=kind) for one, kind in zip(records, kinds, strict=True)]
    assert read == [CUSTOMER, ORG, card]
    assert all(dict(record.headers)[RECOVERED] == b"1" for record in records)


async def test_events_not_delivered_to_lago_wait_for_it_and_dead_letters_stay_dead(database: str) -> None:
    async with Writer(database) as writer:
        await writer.put(TOPICS.events, event(7), manifest=manifest(3))
        await writer.put(TOPICS.events, event(9), manifest=manifest(first=9))
        await writer.put(TOPICS.receipts, msgspec.structs.replace(receipt("failed", 1), reason="too_large"))
        stored = await stored_state(database)
    ((waits, waiting),) = retries_of(TOPICS, "meterbridge", stored.events)
    ((dead, letter),) = dead_letters_of(TOPICS, "meterbridge", stored.events)
    assert (waits, dead) == (event(9).transaction_id, event(7).transaction_id)
    assert (waiting.topic, waiting.partition, letter.topic) == (TOPICS.retry, 0, TOPICS.dlq)
    assert msgspec.json.decode(waiting.value or b"", type=LagoEvent) == event(9)
    assert (dict(waiting.headers)["maybe_sent"], dict(letter.headers)["reason"]) == (b"1", b"too_large")
    assert msgspec.json.decode(dict(letter.headers)["manifest"], type=Manifest) == Manifest(
        0, 7, 8, 2, (3,), "meterbridge"
    )
    assert Decimal(msgspec.json.decode(letter.value or b"", type=LagoEvent).precise_total_amount_cents) == Decimal(
        "1.45"
    )


@pytest.mark.parametrize(("org", "organization"), [("eu::gone", "eu"), ("gone", ""), ("acme", "eu")])
async def test_an_event_waits_for_its_orgs_organisation_with_or_without_an_org_row(
    database: str, org: str, organization: str
) -> None:
    """Without a row the org's key names the organisation: otherwise the default one would get the event."""
    async with Writer(database) as writer:
        await writer.put(TOPICS.orgs, ORG)
        await writer.put(TOPICS.events, event(9, org_id=org), manifest=manifest(first=9))
        stored = await stored_state(database)
    ((_, waiting),) = retries_of(TOPICS, "meterbridge", stored.events)
    assert msgspec.json.decode(dict(waiting.headers)["manifest"], type=Manifest).organization == organization


async def test_an_event_that_lago_accepted_and_will_not_bill_is_no_dead_letter(database: str) -> None:
    """In an earlier version it was in no topic: its usage was billed again under another name."""
    async with Writer(database) as writer:
        await writer.put(TOPICS.events, event(7), manifest=manifest(3))
        await writer.put(TOPICS.receipts, receipt("completed", 1))
        await writer.put(TOPICS.receipts, msgspec.structs.replace(receipt("failed", 2), reason="unbillable_ended"))
        stored = await stored_state(database)
    assert await rows(database, "SELECT status, reason FROM usage_parts WHERE event IS NOT NULL") == [
        ("failed", "unbillable_ended")
    ]
    assert not stored.events


async def test_usage_before_a_long_history_of_versions_waits_for_a_person(database: str) -> None:
    """The oldest of many versions may have been removed: the first one that is left did not pay for earlier usage."""
    versions = tuple(MappingVersion(n * DAY_US, f"org-{n}", "tenant") for n in range(3, 3 + KEPT_VERSIONS))
    moved = CustomerRecord("acme", versions, DAY_US, 20 * DAY_US, known_from=3 * DAY_US)
    async with Writer(database) as writer:
        await writer.put(TOPICS.customers, moved)
        (record,) = states_of(TOPICS, await stored_state(database))
    assert msgspec.json.decode(record.value or b"", type=CustomerRecord) == moved


async def test_a_second_loss_finds_the_rows_of_the_first_one_in_any_order(database: str) -> None:
    post = DeliveryAttempt(1, "out", "events.batch", 200, 1)
    new = NewTopics(TOPICS.projected, TOPICS.enriched, "new", 1)
    async with Writer(database) as writer:
        await writer.put(TOPICS.deliveries, post, post, post)
    await rows(database, _EARLIER)  # as after a vacuum: the rows of the first loss lie behind the new ones
    await begin_anew(database, [], new, dry_run=False)
    ((newest, count),) = await rows(database, 'SELECT max("offset"), count(*) FROM webhook_delivery_logs')
    assert newest < 0 and count == 6


async def test_only_calls_in_no_event_are_lost_and_their_copies_replace_them(database: str) -> None:
    """Parts: 7 billed, 8 held and released into 7, 9 held, 10 written off, 11 completed by its receipt alone, 12
    metered and open.
    """
    parts = {n: f"{PREFIX}{n}" for n in range(7, 13)}
    held = {n: {"held": "unmapped"} for n in (8, 9, 10)}
    calls = [usage(n, part=part, **held.get(n, {})) for n, part in parts.items()]
    calls[-1] = msgspec.structs.replace(calls[-1], decision="metered")
    about = [msgspec.structs.replace(receipt(status, 1), transaction_id=parts[n]) for n, status in STATES.items()]
    new = NewTopics(TOPICS.projected, TOPICS.enriched, "new", 2)
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, *calls)
        await writer.put(TOPICS.events, event(7), manifest=manifest(8))
        await writer.put(TOPICS.receipts, *about)
        await writer.put(TOPICS.customers, CUSTOMER, CUSTOMER)
        planned = await begin_anew(database, [], new, dry_run=True)
        assert await rows(database, "SELECT count(*) FROM llm_usage_log WHERE decision = 'lost'") == [(0,)]
        lost = await begin_anew(database, [], new, dry_run=False)
        assert planned == lost and (lost.calls, lost.usd) == (2, Decimal("0.00029"))
        assert (await begin_anew(database, [], new, dry_run=False)).calls == 0
        assert await rows(database, LOST) == [(f"{9:032x}",), (f"{12:032x}",)]
        assert await rows(database, "SELECT part FROM held_parts ORDER BY 1") == [(parts[10],), (parts[8],)]
        assert await rows(database, "SELECT partition, topic_id, next FROM projector_offsets ORDER BY 1") == [
            (0, "new", 0),
            (1, "new", 0),
        ]
        again = [
            msgspec.structs.replace(calls[n - 7], part=f"again-{n}", held="", customer_id="other") for n in (7, 9, 12)
        ]
        await writer.take(TOPICS.enriched, 0, [record_at(n, one) for n, one in enumerate(again)])
        assert await rows(database, LOST) == []
        assert await rows(database, "SELECT part FROM llm_usage_log WHERE customer_id = 'other' ORDER BY 1") == [
            ("again-12",),
            ("again-9",),
        ]
        moved = msgspec.structs.replace(CUSTOMER, updated_at=9 * DAY_US)
        await writer.put(TOPICS.customers, moved)
    assert await rows(database, "SELECT updated_at FROM customer_records") == [(to_datetime(9 * DAY_US),)]


async def test_events_that_only_lago_has_are_billed_and_calls_without_a_row_are_reported(database: str) -> None:
    new = NewTopics(TOPICS.projected, TOPICS.enriched, "new", 1)
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, usage(7), usage(8), usage(9, part=f"{PREFIX}9"))
    known, unknown = event(7, requests="2"), event(9, requests="3")
    done = await begin_anew(database, [known, unknown], new, dry_run=False)
    assert (done.calls, done.missing) == (0, 2)
    billed = await rows(database, "SELECT transaction_id, status, calls, org_id FROM lago_events ORDER BY 1")
    assert billed == [(known.transaction_id, "completed", 2, "org"), (unknown.transaction_id, "completed", 3, "org")]
    ((since,),) = await rows(database, "SELECT since > now() - interval '1 minute' FROM log_completeness")
    assert since
