"""Names of any length in the tables: a sender's names fit into every index, and break no sum of other customers."""

import random
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis.strategies import text

from connectors.operations.provider_health import ProviderHealth
from connectors.postgres.pool import Database
from schemas.bounded_name import MAX_BYTES, bounded_name
from schemas.context import CallContext
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord
from schemas.records import AuditRecord, DeliveryAttempt, Rejection
from tests.support.credits import account, give
from tests.support.database import rows
from tests.support.history import TOPICS, TopicRecord
from tests.support.projection import Writer, event, manifest, usage

LENGTH = 4000
#: Characters of one and of four bytes, in no order, so that nothing of them can be compressed.
ALPHABETS = {"one_byte": "".join(map(chr, range(0x21, 0x7F))), "four_bytes": "".join(map(chr, range(0x20000, 0x2A000)))}
#: Fields of a call that its sender chooses.
CHOSEN = (
    *("customer_id", "model", "provider", "status", "call_id", "request_id", "call_type", "user_id", "team_id"),
    *("organization_id", "key_hash", "key_alias", "org_id", "external_subscription_id", "note", "power_level"),
)


def names(alphabet: str, seed: int = 1) -> Any:
    """A function that makes another long name each time."""
    some = random.Random(seed)
    return lambda: "".join(some.choices(alphabet, k=LENGTH))


def long_call(number: int, name: Any, **fields: Any) -> Any:
    """A call whose sender chose long names everywhere; it ended now."""
    context = CallContext(tags=[name(), name()], spend_logs_metadata={"session_id": name(), "app": name()})
    now = datetime.now(UTC).isoformat()
    chosen = {**{field: name() for field in CHOSEN}, "status": "success", "start": now, "end": now}
    kept = msgspec.Raw(msgspec.json.encode(context))
    return usage(number, **{**chosen, "context": kept, **fields})


@pytest.mark.parametrize("alphabet", ALPHABETS)
async def test_a_call_with_names_of_any_length_is_stored_and_summed_with_the_others(url: str, alphabet: str) -> None:
    name = names(ALPHABETS[alphabet])
    now = datetime.now(UTC).isoformat()
    neighbour = usage(2, user_id="ada", provider="openai", model="gpt-5", status="success", start=now, end=now)
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, long_call(1, name), long_call(3, name, held="no_mapping"), neighbour)
    await rows(url, "SELECT refresh_usage_summary()")
    assert await rows(url, "SELECT count(*), sum(total_requests)::int FROM llm_usage_summary") == [(3, 3)]
    assert await rows(url, "SELECT calls FROM usage_by_dimension WHERE dimension = 'user' AND value = 'ada'") == [(1,)]
    shown: dict[str, int] = {}
    with Database(url, size=1) as database:
        await ProviderHealth(database, shown.update, lambda _: None).once()
    assert shown["healthy"] == 3


#: Every column or expression of text that an index has, by its table, and what bounds it. The product makes the ones in `OURS` itself;
#: a CHECK bounds others; `BOUNDED` is what the projector and the sums bound by `bounded_name`, which the tests here try.
OURS = {
    "projector_offsets": {"topic"},
    "unprojected_records": {"topic"},
    "llm_usage_log": {"part"},
    "usage_parts": {"part", "released_in", "status"},
    "corrected_parts": {"part"},
    "api_keys": {"key_id"},
    "webhook_delivery_logs": {"direction"},
    "rejected_calls": {"resolution"},
    "usage_latencies": {"dimension"},
    "stripe_events": {"outcome"},
    "ledger_accounts": {"account"},
    "ledger_entries": {"account"},
    "credit_grants": {"account"},
    "credit_reservations": {"account"},
    "credit_transactions": {"account", "user_id"},
    "user_credits": {"account"},
    "user_provider_keys": {"key_id", "secret_id"},
}
BOUNDED = {
    "llm_usage_log": {"alias", "customer_id", "org_id", "request_id"},
    "usage_parts": {"org_id"},
    "rejected_calls": {"reason"},
    "customer_records": {"litellm_customer_id"},
    "organisations": {"org_id"},
    "audit_log": {"audit_id", "action"},
    "webhook_delivery_logs": {"unique_key"},
    "usage_summary_days": {"user_id", "provider", "model"},
    "usage_by_dimension": {"value"},
    "usage_latencies": {"value"},
    "provider_health": {"provider", "model"},
}
#: Columns of text in an index, of tables and not of their partitions; also those that only an expression of an index names.
_IN_INDEXES = """
SELECT DISTINCT t.relname::text, a.attname::text
FROM pg_indexes n
JOIN pg_class c ON c.relname = n.indexname AND c.relnamespace = n.schemaname::regnamespace AND NOT c.relispartition
JOIN pg_index i ON i.indexrelid = c.oid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND a.atttypid = 'text'::regtype
WHERE n.schemaname = 'public' AND (
    a.attnum = ANY (i.indkey)
    OR EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.refobjid = t.oid AND d.refobjsubid = a.attnum)
)
ORDER BY 1, 2
"""
_CHECKS = """
SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
WHERE k.contype = 'c' AND k.conrelid = $1::regclass AND a.attname = $2
"""
#: A list of words, a pattern with an end, or a length.
_BOUNDS = ("= ANY (ARRAY[", "$'::text", "octet_length(")


async def test_every_text_in_an_index_has_a_bound(url: str) -> None:
    """A new index over text fails here until its bound is known."""
    unbounded, found = [], await rows(url, _IN_INDEXES)
    assert {(table, name) for known in (OURS, BOUNDED) for table, columns in known.items() for name in columns} <= set(
        found
    )
    for table, column in found:
        if column in OURS.get(table, ()) or column in BOUNDED.get(table, ()):
            continue
        checks = " ".join(text for (text,) in await rows(url, _CHECKS, table, column))
        if not any(bound in checks for bound in _BOUNDS):
            unbounded.append((table, column))
    assert not unbounded, sorted(unbounded)


@pytest.mark.parametrize("alphabet", ALPHABETS)
async def test_text_bounded_by_the_projector_and_the_sums_fits_into_every_index(url: str, alphabet: str) -> None:
    name = names(ALPHABETS[alphabet])
    rejection = Rejection(name(), "meter", 1_795_176_000_000_000, name(), 1)
    attempt = DeliveryAttempt(1_795_176_000_000_000, "in", name(), 200, 1, name(), unique_key=name())
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, long_call(1, name), long_call(2, name, held="no_mapping"))
        await writer.put(TOPICS.events, event(7, org_id=name(), user_id=name()), manifest=manifest())
        await writer.put(TOPICS.rejected, rejection)
        await writer.put(TOPICS.deliveries, attempt)
        await writer.put(TOPICS.audit, AuditRecord(name(), 1, name(), name(), {"org": name()}))
        for topic, value in (
            (TOPICS.customers, CustomerRecord(name(), (MappingVersion(0, name(), name()),), 1, 1)),
            (TOPICS.orgs, OrgRecord(name(), name(), name())),
        ):
            record = TopicRecord(0, 1_795_176_000_000, name().encode(), msgspec.json.encode(value), ())
            await writer.take(topic, 0, [record])
    await rows(url, "SELECT refresh_usage_summary()")
    with Database(url, size=1) as database:
        await ProviderHealth(database, lambda _: None, lambda _: None).once()
    assert await rows(url, "SELECT day, problem FROM usage_days_failed") == []
    assert await rows(url, "SELECT topic, reason, problem FROM unprojected_records") == []
    for table, columns in BOUNDED.items():
        for column in columns - {"request_id"}:
            longest = f"SELECT max(octet_length({column})), max({column}) LIKE 'sha256:%' FROM {table}"
            found = await rows(url, longest)
            assert found[0][0] == len("sha256:") + 64, (table, column, found)


@given(text(max_size=300) | text(alphabet="a𠀀", min_size=240, max_size=260))
def test_a_bounded_name_fits_and_names_stay_different(name: str) -> None:
    bounded = bounded_name(name)
    assert len(bounded.encode()) <= MAX_BYTES and bounded_name(bounded) == bounded
    assert bounded == name or len(name.encode()) > MAX_BYTES
    assert bounded_name(name + "b") != bounded


async def test_the_database_bounds_a_name_like_the_processes_do(url: str) -> None:
    some = [
        "",
        "a" * 255,
        "a" * 256,
        "é" * 127,
        "é" * 128,
        "𠀀" * 63,
        "𠀀" * 64,
        *(names(ALPHABETS[one])() for one in ALPHABETS),
    ]
    found = await rows(
        url, "SELECT bounded_name(name) FROM unnest($1::text[]) WITH ORDINALITY AS t (name, n) ORDER BY n", some
    )
    assert [name for (name,) in found] == [bounded_name(name) for name in some]


async def test_an_account_id_is_an_id_that_a_call_can_have(url: str) -> None:
    """The customer of a call with a longer id is stored under another name, so it would never be debited."""
    longest = "é" * (MAX_BYTES // 2)
    await give(url, f"user:{longest}", "1")
    assert await account(url, f"user:{bounded_name(longest)}") == (1, 0)
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await give(url, f"user:{longest}é", "1")
