"""Mappings, orgs, changes and deliveries as rows, and the documented SQL for operators, with real Postgres."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import HOUR_US, SECOND_US
from schemas.records import AuditRecord, DeliveryAttempt, Receipt
from tests.support.database import rows
from tests.support.history import PREFIX, TOPICS, TopicRecord
from tests.support.projection import Writer, emptied, event, manifest, snapshot, usage

NOW_US = int(datetime.now(UTC).timestamp()) * SECOND_US
MAPPED = "SELECT lago_customer_id, is_active, next_effective_from IS NULL FROM customer_mappings"


def customer(*versions: MappingVersion, name: str = "acme") -> bytes:
    return msgspec.json.encode(CustomerRecord(name, versions, NOW_US, NOW_US))


def record_at(offset: int, value: bytes | None, key: bytes = b"acme") -> TopicRecord:
    return TopicRecord(offset, NOW_US // 1000, key, value)


async def test_a_mapping_row_shows_the_version_in_force_at_the_time_of_the_query(url: str) -> None:
    """A version takes effect by itself, a moment after it was stored; nothing is written then."""
    past, now, later = (MappingVersion(NOW_US + hours * HOUR_US, f"org{hours}", "t") for hours in (-2, -1, 1))
    async with Writer(url) as writer:
        for versions, shown in (
            ((past,), ("org-2", True, True)),
            ((past, now), ("org-1", True, True)),
            ((past, now, later), ("org-1", True, False)),
            ((later,), ("org1", True, True)),  # the first version also covers everything before it
        ):
            await writer.put(TOPICS.customers, customer(*versions))
            assert await rows(url, MAPPED) == [shown]
        soon = MappingVersion(NOW_US + HOUR_US, "org9", "t", is_active=False)
        await writer.put(TOPICS.customers, customer(past, soon))
    moved = "UPDATE customer_records SET versions = replace(versions::text, $1, $2)::jsonb"
    [(at,)] = await rows(url, "SELECT versions->1->>'effective_from' FROM customer_records")
    await rows(url, moved, at, "2026-01-01T00:00:00Z")
    assert await rows(url, MAPPED) == [("org-2", True, True)]  # its own begins later than that
    await rows(url, moved, "2026-01-01T00:00:00Z", datetime.now(UTC).isoformat())
    assert await rows(url, MAPPED) == [("org9", False, True)]


async def test_a_customer_that_is_no_longer_mapped_has_no_row(url: str) -> None:
    """From the end of the mapping on; its versions are kept for earlier calls."""
    ended = MappingVersion(NOW_US - HOUR_US, "", "", is_active=False, deleted=True)
    ending = MappingVersion(NOW_US + HOUR_US, "", "", is_active=False, deleted=True)
    began = MappingVersion(NOW_US - 2 * HOUR_US, "org", "t")
    async with Writer(url) as writer:
        await writer.put(TOPICS.customers, customer(began, ending))
        assert await rows(url, MAPPED) == [("org", True, False)]
        await writer.put(TOPICS.customers, customer(began, ended))
    assert await rows(url, MAPPED) == []
    assert await rows(url, "SELECT jsonb_array_length(versions) FROM customer_records") == [(2,)]


async def test_the_mappings_have_the_documented_columns(url: str) -> None:
    columns = await rows(
        url,
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'customer_mappings' ORDER BY ordinal_position",
    )
    assert columns[:7] == [
        ("litellm_customer_id", "text"),
        ("lago_customer_id", "text"),
        ("lago_organization_id", "text"),
        ("billing_plan", "text"),
        ("is_active", "boolean"),
        ("created_at", "timestamp with time zone"),
        ("updated_at", "timestamp with time zone"),
    ]


async def test_a_mapping_shows_its_stored_values(url: str) -> None:
    version = MappingVersion(NOW_US - HOUR_US, "org", "tenant", "premium", updated_at=NOW_US - 60 * SECOND_US)
    record = CustomerRecord("acme", (version,), NOW_US - 2 * HOUR_US, NOW_US)
    async with Writer(url) as writer:
        await writer.put(TOPICS.customers, msgspec.json.encode(record))
    [shown] = await rows(url, "SELECT * FROM customer_mappings")
    created, changed = (datetime.fromtimestamp((NOW_US - ago) / 1e6, UTC) for ago in (2 * HOUR_US, 60 * SECOND_US))
    assert shown[:7] == ("acme", "org", "tenant", "premium", True, created, changed)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO customer_mappings (litellm_customer_id, lago_customer_id) VALUES ('acme', 'org')",
        "UPDATE customer_mappings SET lago_customer_id = 'other'",
        "DELETE FROM customer_mappings",
        "INSERT INTO event_queue (transaction_id, status) VALUES ('t', 'completed')",
        "UPDATE event_queue SET status = 'completed'",
    ],
)
async def test_mappings_and_events_cannot_be_changed_by_sql(url: str, statement: str) -> None:
    """A manual change there would bill nothing: the API's records are decisive."""
    refused = (asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.FeatureNotSupportedError)
    with pytest.raises(refused, match="view"):
        await rows(url, statement)


async def test_of_a_compacted_topic_the_latest_record_counts_after_any_number_of_readings(url: str) -> None:
    """Offsets may be deleted and the topic read again, in other batches."""
    log = [
        record_at(0, customer(MappingVersion(0, "one", "t"))),
        record_at(1, None),
        record_at(2, customer(MappingVersion(0, "two", "t"))),
        record_at(3, customer(MappingVersion(0, "x", "t"), name="gone"), b"gone"),
        record_at(4, b"{not ours"),
        record_at(5, None, b"gone"),
        record_at(7, customer(MappingVersion(0, "three", "t"))),
    ]
    orgs = [
        record_at(0, msgspec.json.encode(OrgRecord("org", "Acme")), b"org"),
        record_at(1, None, b"org"),
        record_at(3, msgspec.json.encode(OrgRecord("org", "Acme & Co")), b"org"),
        record_at(4, msgspec.json.encode(OrgRecord("old", "Old")), b"old"),
        record_at(5, None, b"old"),
    ]
    shown = "SELECT litellm_customer_id, lago_customer_id, o.name FROM customer_mappings, organisations o"
    seen = []
    for cut in (1, 3, 7):
        await emptied(url)
        async with Writer(url) as writer:
            for again in range(2):
                if again:
                    await rows(url, "TRUNCATE projector_offsets")
                for topic, result in ((TOPICS.customers, log), (TOPICS.orgs, orgs)):
                    for start in range(0, len(result), cut):
                        await writer.take(topic, 0, result[start : start + cut])
                        if again:  # an older record changes nothing, nor does an older removal
                            kept = f"{shown} WHERE litellm_customer_id = 'acme' AND o.org_id = 'org'"
                            assert await rows(url, kept) == [("acme", "three", "Acme & Co")]
                seen.append(await rows(url, shown))
    assert seen == [[("acme", "three", "Acme & Co")]] * 6


async def test_an_org_row_has_its_limits_and_its_periods(url: str) -> None:
    periods = (Period("sub", 0, HOUR_US, "starter"), Period("sub", HOUR_US, None, "professional"))
    org = OrgRecord(
        "org_1", "A\0cme", "professional", "USD", "active", periods, NOW_US, "sub", {"tokens": 10}, "a@example.com"
    )
    async with Writer(url) as writer:
        await writer.put(TOPICS.orgs, org)
    running = """
    SELECT name, email, plan, currency, status, subscription_id, limits->>'tokens', p->>'plan_code',
        (p->>'started_at')::timestamptz
    FROM organisations, jsonb_array_elements(periods) p WHERE p->>'terminated_at' IS NULL
    """
    began = datetime(1970, 1, 1, 1, tzinfo=UTC)
    assert await rows(url, running) == [
        ("Acme", "a@example.com", "professional", "USD", "active", "sub", "10", "professional", began)
    ]


async def test_a_change_is_stored_once_with_the_values_before_it(url: str) -> None:
    line = msgspec.to_builtins(AuditRecord("a1", NOW_US, "ada", "mapping.put", {"customer": "acme"}, "why", 3))
    result = {"before": "not JSON", "after": r'{"plan": "star\u0000ter"}', "request_id": "r1", "cost_usd": "0.25"}
    with_both = msgspec.json.encode({**line, **result})
    async with Writer(url) as writer:
        await writer.put(TOPICS.audit, with_both, with_both, AuditRecord("a2", NOW_US, "bob", "replay", {}))
        await writer.put(TOPICS.audit, with_both)
    found = await rows(
        url,
        "SELECT audit_id, actor, target->>'customer', count, cost_usd, before, after, request_id FROM audit_log ORDER BY 1",
    )
    assert found == [
        ("a1", "ada", "acme", 3, Decimal("0.25"), '"not JSON"', '{"plan": "starter"}', "r1"),
        ("a2", "bob", None, 0, Decimal(0), None, None, None),
    ]


def attempt(status: int, error: str = "", kind: str = "events.batch", **fields: Any) -> DeliveryAttempt:
    return DeliveryAttempt(NOW_US, "out", kind, status, 12, error, **fields)


async def test_the_documented_query_about_deliveries_is_answered(url: str) -> None:
    """Attempts, successes and failures by type, within a day."""
    day_old = DeliveryAttempt(NOW_US - 25 * HOUR_US, "out", "events.batch", 200, 1)
    async with Writer(url) as writer:
        await writer.put(
            TOPICS.deliveries,
            *(attempt(200, events=100, first="a", last="b", source="billing.lago.events-0") for _ in range(3)),
            *(attempt(422, "already_exists"), attempt(500, "http_500"), attempt(0, "timeout"), day_old),
            DeliveryAttempt(NOW_US, "in", "subscription.started", 200, 3, unique_key="k1"),
        )
    asked = """
    SELECT
      event_type,
      COUNT(*) as total_attempts,
      COUNT(CASE WHEN http_status BETWEEN 200 AND 299 THEN 1 END) as successful,
      COUNT(CASE WHEN http_status >= 400 THEN 1 END) as failed
    FROM webhook_delivery_logs
    WHERE created_at > NOW() - INTERVAL '24 hours'
    GROUP BY event_type;
    """
    assert sorted(await rows(url, asked)) == [("events.batch", 6, 3, 2), ("subscription.started", 1, 1, 0)]
    assert await rows(
        url, "SELECT http_status, error, source, unique_key FROM webhook_delivery_logs WHERE http_status IS NULL"
    ) == [(None, "timeout", None, None)]


async def _calls(url: str) -> datetime:
    """Calls of `customer-123` in every possible state; returns the end time of the last one."""
    end = datetime.now(UTC) - timedelta(minutes=1)

    def call(number: int, part: int | None, **fields: Any) -> Any:
        at = end - timedelta(hours=20 - number)
        moments = {"start": at.isoformat(), "end": at.isoformat()}
        of_part = {"part": f"{PREFIX}{part}"} if part is not None else {"part": "", "decision": "cache_hit"}
        return usage(
            number,
            **moments,
            **of_part,
            **{"customer_id": "customer-123", "model": "gpt-4o", "provider": "openai", "total_tokens": 250, **fields},
        )

    async with Writer(url) as writer:
        await writer.put(
            TOPICS.enriched,
            call(1, 1, org_id="org"),  # delivered
            call(2, 1, org_id="org", cost_usd=Decimal("0.1")),
            call(3, 3, held="no_mapping"),  # held, then released into event 1
            call(4, 4, held="no_mapping"),  # held
            call(5, 5),  # sealed, not delivered
            call(6, 6),  # a dead letter
            call(7, 7, held="no_mapping"),  # given up
            call(8, None),  # nothing is to be done about it
            call(9, 1, customer_id="other"),
            call(20, 10, model="claude"),  # its window is open
        )
        await writer.put(TOPICS.events, event(1), manifest=manifest(3, first=1))
        await writer.put(TOPICS.events, event(5), event(6), manifest=manifest())
        for number, status in ((1, "completed"), (6, "failed"), (7, "written_off")):
            await writer.put(TOPICS.receipts, Receipt(f"{PREFIX}{number}", status, NOW_US))
    return end


async def test_the_documented_queries_about_usage_are_answered(url: str) -> None:
    """A customer's statistics, recent calls, and calls that need an action."""
    end = await _calls(url)
    recent = """
    SELECT * FROM litellm_usage_events
    WHERE customer_external_id = 'customer-123'
    ORDER BY timestamp DESC LIMIT 10;
    """
    found = await rows(url, recent)
    assert len(found) == 9
    assert [row[2] for row in found] == sorted((row[2] for row in found), reverse=True)
    assert (found[0][1], found[0][2], found[0][3], found[0][4]) == ("customer-123", end, None, "claude")
    assert await rows(url, "SELECT COUNT(*) FROM litellm_usage_events WHERE processed_at IS NULL;") == [(4,)]
    open_ones = "SELECT id FROM litellm_usage_events WHERE processed_at IS NULL ORDER BY timestamp"
    assert [one.int for (one,) in await rows(url, open_ones)] == [4, 5, 6, 20]
    used = await rows(url, "SELECT * FROM aggregate_customer_usage('customer-123', NOW() - INTERVAL '30 days', NOW());")
    assert [(row[0], row[2], row[5], row[6]) for row in used] == [
        ("gpt-4o", 7, 1750, Decimal("0.1") + 6 * Decimal("0.000145")),
        ("claude", 1, 250, Decimal("0.000145")),
    ]
    assert await rows(url, "SELECT status, COUNT(*) FROM event_queue GROUP BY status ORDER BY 1;") == [
        ("completed", 1),
        ("failed", 2),
        ("held", 1),
        ("pending", 1),
    ]


async def test_a_failed_attempt_that_is_billed_with_the_call_after_it_adds_nothing_to_sums(url: str) -> None:
    """Its row keeps its cost and its tokens, which the row of the later call has, too."""
    async with Writer(url) as writer:
        success = usage(1, cost_usd=Decimal("0.0055"), total_tokens=30)
        attempt = usage(2, cost_usd=Decimal("0.001"), total_tokens=10, decision="carried", part="", status="failure")
        await writer.put(TOPICS.enriched, success, attempt)
        await writer.put(TOPICS.events, event(7), manifest=manifest())
    everything = "'2020-01-01', '2030-01-01'"
    asked = f"SELECT sum(calls)::int, sum(cost_usd), sum(total_tokens)::int FROM aggregate_customer_usage('acme', {everything})"
    assert await rows(url, asked) == [(1, Decimal("0.0055"), 30)]
    asked = "SELECT sum(provider_cost_usd), sum(billed_usd), sum(total_tokens)::int FROM usage_calls"
    assert await rows(url, asked) == [(Decimal("0.0055"), Decimal("0.0055"), 30)]
    asked = "SELECT decision, cost_usd, processed_at IS NULL FROM litellm_usage_events ORDER BY id"
    assert await rows(url, asked) == [("billable", Decimal("0.0055"), True), ("carried", Decimal("0.001"), False)]


async def test_a_replaced_event_is_done_once_its_replacement_is(url: str) -> None:
    """The replaced event stays `failed`: earlier its calls were shown as waiting forever, and their months kept."""
    asked = "SELECT transaction_id, org_id, external_subscription_id, processed_at IS NULL FROM litellm_usage_events"
    instead = msgspec.structs.replace(event(7), transaction_id=f"{PREFIX}7-again", external_subscription_id="next")
    further = msgspec.structs.replace(
        event(7), transaction_id=f"{PREFIX}7-again-again", external_subscription_id="last"
    )

    def receipt_of(again: str, status: str) -> Receipt:
        reason = "unbillable_ended" if status == "failed" else ""
        return Receipt(f"{PREFIX}7{again}", status, NOW_US, reason=reason)

    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, org_id="org", external_subscription_id="sub"))
        await writer.put(TOPICS.events, event(7), manifest=manifest())
        await writer.put(TOPICS.receipts, receipt_of("", "completed"), receipt_of("", "failed"))
        assert await rows(url, asked) == [(f"{PREFIX}7", "org", "sub", True)]
        await writer.put(TOPICS.events, instead, manifest=manifest())
        assert await rows(url, asked) == [(f"{PREFIX}7-again", "org", "next", True)]
        await writer.put(TOPICS.receipts, receipt_of("-again", "completed"))
        assert await rows(url, asked) == [(f"{PREFIX}7-again", "org", "next", False)]
        await writer.put(TOPICS.receipts, receipt_of("-again", "failed"))
        await writer.put(TOPICS.events, further, manifest=manifest())
        assert await rows(url, asked) == [(f"{PREFIX}7-again-again", "org", "last", True)]
        await writer.put(TOPICS.receipts, receipt_of("-again-again", "completed"))
    assert await rows(url, asked) == [(f"{PREFIX}7-again-again", "org", "last", False)]


@pytest.mark.parametrize("held", ["", "no_subscription"])
@pytest.mark.parametrize("merged", [False, True])
async def test_a_call_has_the_org_and_the_subscription_that_its_event_bills(url: str, held: str, merged: bool) -> None:
    """Earlier it had those that it was counted or held for, although another org paid."""
    asked = "SELECT transaction_id, org_id, external_subscription_id FROM litellm_usage_events"
    into, windows = (9, [7]) if merged else (7, [])
    part, sub = f"{PREFIX}{into}", "" if held else "old"
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, org_id="org_old", held=held, external_subscription_id=sub))
        assert await rows(url, asked) == [(None, "org_old", sub or None)]
        await writer.put(TOPICS.events, event(into, org_id="org_new"), manifest=manifest(*windows, first=into))
        assert await rows(url, asked) == [(part, "org_new", "sub")]
        await writer.put(TOPICS.receipts, Receipt(part, "completed", NOW_US, "moved"))
    assert await rows(url, asked) == [(part, "org_new", "moved")]


async def test_usage_is_counted_from_the_start_to_before_the_end(url: str) -> None:
    end = await _calls(url)
    asked = "SELECT coalesce(sum(calls), 0)::int FROM aggregate_customer_usage('customer-123', $1, $2)"
    assert await rows(url, asked, end, end + timedelta(seconds=1)) == [(1,)]
    assert await rows(url, asked, end - timedelta(seconds=1), end) == [(0,)]
    halves = [await rows(url, asked, end - timedelta(days=n), end - timedelta(days=n - 1)) for n in (2, 1)]
    assert sum(count for [(count,)] in halves) == 7


async def test_the_event_of_usage_that_was_held_is_found_with_its_org(url: str) -> None:
    await _calls(url)
    asked = "SELECT transaction_id, org_id, processed_at IS NULL FROM litellm_usage_events WHERE id = $1::text::uuid"
    assert await rows(url, asked, f"{3:032x}") == [(f"{PREFIX}1", "org", False)]
    assert await rows(url, asked, f"{4:032x}") == [(None, None, True)]
    assert await snapshot(url)
