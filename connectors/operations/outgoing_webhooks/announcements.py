"""Finds states in the tables that differ from the announced states, and queues a message for each.

A message and the state that it announces are stored in one transaction, so a killed process neither repeats nor omits a
message. A state that changes and changes back between two looks is not announced.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import uuid4

import msgspec

from connectors.operations.partition_reports import HALTED, STATE
from connectors.postgres.pool import Database
from schemas.webhooks import (
    CREDITS_LOW,
    CREDITS_RECHARGED,
    CREDITS_USED_UP,
    DEAD_LETTER,
    EVENT_TYPES,
    PARTITION_HALTED,
    PARTITION_RESUMED,
    USAGE_HELD,
    Balance,
    BalanceMessage,
    DeadLetterMessage,
    DeadLetterNotice,
    HeldUsage,
    HeldUsageMessage,
    Message,
    PartitionMessage,
    PartitionState,
)
from streams.core.delivery.maybe_sent import lago_may_have

#: The most messages of each kind in one look; the rest follows in the next look.
MOST: Final = 500
#: The most new accounts whose first state one look stores: half the number that fits into the time limit of a
#: statement.
_BEGINNINGS: Final = 50_000
#: The most messages that wait for one endpoint. If there are more, the oldest are given up.
MOST_WAITING: Final = 10_000
#: Key of the advisory lock that lets one process at a time announce. The number is arbitrary, and must not change
#: between releases.
_LOCK: Final = 7_416_318_202
#: The expression of the index `usage_parts_status`.
_STATUS: Final = """
CASE WHEN status = 'written_off' THEN 'failed' WHEN status IS NULL AND event IS NULL THEN 'held' ELSE COALESCE(status, 'pending') END
"""
#: Postgres compares the states, so a process reads only the rows that differ.
_CHANGED: Final = """
WITH present AS MATERIALIZED ({present}),
known AS MATERIALIZED (SELECT subject, state FROM announced_states WHERE kind = $1),
gone AS (
    DELETE FROM announced_states a WHERE kind = $1 AND NOT EXISTS (SELECT FROM present p WHERE p.subject = a.subject)
){also}
SELECT present.*, known.state AS before FROM present {join} JOIN known USING (subject) WHERE {changed} LIMIT $2
"""
_HELD: Final = _CHANGED.format(
    present=f"""
SELECT
    held_customer_id AS subject, sum(held_calls)::bigint AS calls, sum(held_cost_usd) AS cost_usd, min(held_since) AS since,
    (array_agg(held_reason ORDER BY held_since))[1] AS reason
FROM usage_parts
WHERE {_STATUS} = 'held' AND held_calls > 0 AND released_in IS NULL
GROUP BY held_customer_id
""",  # noqa: S608  # our own words
    also="",
    join="LEFT",
    changed="known.state IS NULL OR cost_usd >= $3 * 2::numeric ^ known.state::numeric",
)
_DEAD: Final = _CHANGED.format(
    present=f"""
SELECT
    part AS subject, COALESCE(external_subscription_id, '') AS subscription, COALESCE(org_id, '') AS org_id,
    COALESCE(customer_id, '') AS customer_id, COALESCE(reason, '') AS reason, COALESCE(amount_cents, 0) AS amount_cents,
    COALESCE(calls, 0) AS calls, known_maybe_sent(status, processed_at, maybe_sent, maybe_sent_at) AS maybe_sent,
    concat_ws(' ', attempts, to_char(processed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS state
FROM usage_parts WHERE {_STATUS} = 'failed' AND status = 'failed'
""",  # noqa: S608  # our own words
    also="",
    join="LEFT",
    changed="known.state IS DISTINCT FROM present.state",
)
#: The first state of an account is stored, and not announced.
_BALANCES: Final = _CHANGED.format(
    present="""
SELECT
    account AS subject, balance, overdraft,
    CASE WHEN balance <= 0 THEN 'used_up' WHEN balance < $3 THEN 'low' ELSE 'ok' END AS state
FROM user_credits
""",
    also=f""",
begun AS (
    INSERT INTO announced_states (kind, subject, state)
    SELECT $1, subject, present.state FROM present LEFT JOIN known USING (subject) WHERE known.state IS NULL LIMIT {_BEGINNINGS}
)""",  # noqa: S608  # our own words
    join="INNER",
    changed="known.state <> present.state",
)
#: For how long a second halt of the same partition is not announced. A partition may halt and continue again and again.
CALM_S: Final = 600
#: The latest report of each partition. An announced state is `halted` or `running`, the time of the announced halt, and
#: its reason.
_PARTITIONS: Final = _CHANGED.format(
    present=f"""
SELECT DISTINCT ON (source) source AS subject, event_type = '{HALTED}' AS halted, COALESCE(error, '') AS reason, created_at AS since
FROM webhook_delivery_logs WHERE direction = '{STATE}' ORDER BY source, "offset" DESC
""",  # noqa: S608  # our own words
    also="",
    join="LEFT",
    changed="""
CASE WHEN halted
    THEN known.state IS NULL OR (
        starts_with(known.state, 'running') AND split_part(known.state, ' ', 2)::timestamptz <= now() - make_interval(secs => $3)
    )
    ELSE starts_with(known.state, 'halted')
END""",
)
_SAVE: Final = """
INSERT INTO announced_states (kind, subject, state)
SELECT $1, * FROM unnest($2::text[], $3::text[])
ON CONFLICT (kind, subject) DO UPDATE SET state = EXCLUDED.state, changed_at = now()
"""
_QUEUE: Final = """
INSERT INTO outgoing_webhooks (endpoint, message_id, event_type, body)
SELECT endpoint, message.* FROM unnest($1::text[]) AS endpoint, unnest($2::text[], $3::text[], $4::text[]) AS message
"""
#: Limits the space that a slow or dead endpoint needs.
_CUT: Final = """
UPDATE outgoing_webhooks SET ended_at = now(), outcome = 'given_up'
WHERE (endpoint, message_id) IN (
    SELECT endpoint, message_id FROM outgoing_webhooks WHERE endpoint = $1 AND ended_at IS NULL
    ORDER BY created_at DESC OFFSET $2
)
"""


class Change(NamedTuple):
    """A state to store, and the message that announces it."""

    subject: str
    state: str
    message: Message


@dataclass(frozen=True, slots=True)
class Announcements:
    """The kinds of messages, and their endpoints.

    Fields:
        endpoints: names of the endpoints.
        events: the types of messages that are sent.
        held_usd: held usage is announced when it reaches this sum, and each time that it has doubled.
        low_usd: credits below this are low.
    """

    endpoints: Sequence[str]
    events: Sequence[str] = EVENT_TYPES
    held_usd: Decimal = Decimal(100)
    low_usd: Decimal = Decimal(5)

    async def look(self, database: Database) -> int:
        """Queue a message for each change since the last look; return their number. 0 also means that another process
        is looking.

        Raises:
            Unavailable: Postgres does not answer.
        """
        stored = 0
        async with database.connection() as connection, connection.transaction():
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return 0
            # Because of the LIMIT, Postgres would choose a plan for an early end that compares each row with each.
            # Usually no row differs, so this plan would be slow.
            await connection.execute("SET LOCAL enable_nestloop = off")
            for kind, query, arguments, changes_of in (
                ("held", _HELD, (self.held_usd,), self._held),
                ("dead", _DEAD, (), self._dead),
                ("balance", _BALANCES, (self.low_usd,), self._balances),
                ("partition", _PARTITIONS, (CALM_S,), self._partitions),
            ):
                changes = [*changes_of(await connection.fetch(query, kind, MOST, *arguments))]
                stored += await self._store(connection, kind, changes)
            for endpoint in self.endpoints:
                await connection.execute(_CUT, endpoint, MOST_WAITING)
        return stored

    async def _store(self, connection: Any, kind: str, changes: Sequence[Change]) -> int:
        if not changes:
            return 0
        states = [(change.subject, change.state) for change in changes]
        await connection.execute(_SAVE, kind, *zip(*states, strict=True))
        wanted = [row for row in (_row(change.message) for change in changes) if row[1] in self.events]
        if wanted:
            await connection.execute(_QUEUE, list(self.endpoints), *zip(*wanted, strict=True))
        return len(wanted)

    def _held(self, rows: Iterable[Mapping[str, Any]]) -> Iterable[Change]:
        for row in rows:
            subject, cost = row["subject"], row["cost_usd"]
            usage = HeldUsage(
                subject, row["reason"] or "", row["calls"], cost, _iso(row["since"]), first=row["before"] is None
            )
            yield Change(subject, str(_step(cost, self.held_usd)), HeldUsageMessage(_iso(), usage))

    def _dead(self, rows: Iterable[Mapping[str, Any]]) -> Iterable[Change]:
        for row in rows:
            letter = DeadLetterNotice(
                row["subject"],
                row["subscription"],
                row["org_id"],
                row["customer_id"],
                row["reason"],
                row["amount_cents"],
                row["calls"],
                lago_may_have(row["reason"], row["maybe_sent"]),
            )
            yield Change(row["subject"], row["state"], DeadLetterMessage(_iso(), letter))

    def _balances(self, rows: Iterable[Mapping[str, Any]]) -> Iterable[Change]:
        order = ("used_up", "low", "ok")
        for row in rows:
            subject, state, before = row["subject"], row["state"], row["before"]
            rose = order.index(state) > order.index(before)
            kind = CREDITS_RECHARGED if rose else CREDITS_LOW if state == "low" else CREDITS_USED_UP
            balance = Balance(subject, state, row["balance"], row["overdraft"])
            message = BalanceMessage(kind, _iso(), balance)  # type: ignore[arg-type]  # one of its words
            yield Change(subject, state, message)

    def _partitions(self, rows: Iterable[Mapping[str, Any]]) -> Iterable[Change]:
        for row in rows:
            subject, halted = row["subject"], row["halted"]
            role, _, place = subject.partition("/")
            topic, _, number = place.rpartition("/")
            _, announced, before = (row["before"] or "  ").split(" ", 2)
            reason = row["reason"] if halted else before
            kind = PARTITION_HALTED if halted else PARTITION_RESUMED
            data = PartitionState(role, topic, int(number), reason, _iso(row["since"]))
            state = f"halted {_iso()} {reason}" if halted else f"running {announced} {reason}"
            yield Change(subject, state, PartitionMessage(kind, _iso(), data))  # type: ignore[arg-type]  # one of its words


def _step(cost_usd: Decimal, bound_usd: Decimal) -> int:
    """Return 0 below the bound, 1 from the bound on, and one more for each doubling."""
    step = 0
    while cost_usd >= bound_usd:
        step, bound_usd = step + 1, bound_usd * 2
    return step


def _row(message: Message) -> tuple[str, str, str]:
    body = msgspec.json.encode(message).decode()
    kinds = {HeldUsageMessage: USAGE_HELD, DeadLetterMessage: DEAD_LETTER}
    kind = message.type if isinstance(message, BalanceMessage | PartitionMessage) else kinds[type(message)]
    return new_id(), kind, body


def new_id() -> str:
    """Make the id of a message, without a dot."""
    return f"msg_{uuid4().hex}"


def _iso(at: datetime | None = None) -> str:
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z")
