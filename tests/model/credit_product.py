"""The product's accounts for a history: its functions in a real Postgres, its ledger for the API, its projector and its
upkeep.

A history is one transaction, which is rolled back; a commit of the product is a savepoint in it. When the product asks
for the time, it gets that of the history: functions by `use_history_time`, statements by `ConnectionAtHistoryTime`.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
from aiokafka import TopicPartition

from connectors.credits.ledger import CreditLedger
from connectors.operations.credit_upkeep import CreditUpkeep
from connectors.postgres.projection import PostgresProjection
from schemas.records import EnrichedUsage
from schemas.tables import CREDITS
from schemas.topics import TopicNames
from streams.agents.projector import PartitionPosition
from tests.model import credit_history as h
from tests.model.credits import CONFLICT
from tests.support.history import TopicRecord

BEGINS = datetime(2026, 11, 2, tzinfo=UTC)
_TOPICS = TopicNames.with_prefix("")
_CLOCKS = re.compile(r"\b(?:clock_timestamp|now)\(\)")
_HISTORY_NOW = "told_now()"
_COMMANDS = {"BEGIN": "SAVEPOINT own", "COMMIT": "RELEASE SAVEPOINT own", "ROLLBACK": "ROLLBACK TO SAVEPOINT own"}


def moment(at: int) -> datetime:
    return BEGINS + timedelta(seconds=at)


async def use_history_time(connection: Any) -> None:
    """From now on the database's functions, and the start of new accounts, use the time `told.now`."""
    await connection.execute(
        f"CREATE FUNCTION {_HISTORY_NOW} RETURNS timestamptz LANGUAGE sql STABLE AS "
        "$$ SELECT current_setting('told.now')::timestamptz $$"
    )
    query = """SELECT pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace AND prosrc ~ '(clock_timestamp|\\mnow)\\(\\)'"""
    for (text,) in await connection.fetch(query):
        await connection.execute(_at_history_time(text))
    await connection.execute(f"ALTER TABLE user_credits ALTER prepaid_since SET DEFAULT {_HISTORY_NOW}")
    await connection.fetch("SELECT ensure_usage_month($1)", BEGINS.date())


async def changed(connection: Any, function: str, change: Callable[[str], str]) -> list[str]:
    """Change a function and those that it calls; returns the definitions before the change. Raises: AssertionError:
    nothing changes.
    """
    query = """SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace
        AND p.prokind = 'f' AND (p.proname = $1 OR EXISTS (
            SELECT FROM pg_proc q WHERE q.pronamespace = p.pronamespace AND q.proname = $1
                AND q.prosrc ~ ('\\m' || p.proname || '\\(')
        ))"""
    before = [text for (text,) in await connection.fetch(query, function) if change(text) != text]
    assert before, f"{function} reads otherwise"
    for text in before:
        await connection.execute(change(text))
    return before


class ConnectionAtHistoryTime:
    """A connection in a history's transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def transaction(self) -> Any:
        return self._connection.transaction()

    async def execute(self, statement: str, *arguments: Any) -> Any:
        return await self._connection.execute(_COMMANDS.get(statement, _at_history_time(statement)), *arguments)

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        return await self._connection.fetch(_at_history_time(statement), *arguments)

    async def fetchrow(self, statement: str, *arguments: Any) -> Any:
        return await self._connection.fetchrow(_at_history_time(statement), *arguments)

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        return await self._connection.fetchval(_at_history_time(statement), *arguments)


def _at_history_time(statement: str) -> str:
    return _CLOCKS.sub(_HISTORY_NOW, statement)


class OneConnection:
    """Replaces the connection pool."""

    def __init__(self, connection: Any) -> None:
        self._connection = ConnectionAtHistoryTime(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield self._connection

    @asynccontextmanager
    async def lasting(self) -> AsyncIterator[Any]:
        async with self._connection.transaction():
            yield self._connection


class Silent:
    def credit_books(self, *state: object) -> None: ...
    def credit_upkeep_failed(self) -> None: ...


class Product:
    """The accounts of one history. `log`: the contents of `litellm.usage.enriched`: times and calls."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        database: Any = OneConnection(connection)
        self._ledger = CreditLedger(database)
        self._projection = PostgresProjection(database, _TOPICS)
        self._upkeep_task = CreditUpkeep(database, Silent())
        self._reservations: dict[str, Any] = {}
        self._log: list[tuple[int, h.Call]] = []

    async def takes(self, step: h.Step) -> Any:
        """The answer to a step; the entries of its movements must sum to zero."""
        await self._connection.execute("SELECT set_config('told.now', $1, true)", moment(step.at).isoformat())
        try:
            async with self._connection.transaction():
                return await getattr(self, f"_{type(step).__name__.lower()}")(step)
        except asyncpg.PostgresError as error:
            if error.sqlstate != CONFLICT:
                raise
            return CONFLICT

    async def state(self) -> dict[str, Any]:
        """Like `tests.model.credits.Book.state`."""
        query = """SELECT c.account, get_account_balance(c.account) AS balance, c.overdraft, (
                SELECT COALESCE(sum(r.amount), 0) FROM credit_reservations r WHERE r.account = c.account
                    AND r.settled_at IS NULL AND r.released_at IS NULL AND r.expires_at > told_now()
            ) AS reserved, ARRAY(
                SELECT (COALESCE(extract(epoch FROM g.expires_at - $1)::bigint, 0), g.remaining) FROM credit_grants g
                WHERE g.account = c.account AND g.remaining > 0 AND g.expires_at > told_now() IS NOT FALSE
            ) AS grants FROM user_credits c"""
        return {
            row["account"]: (row["balance"], row["overdraft"], row["reserved"], sorted(map(tuple, row["grants"])))
            for row in await self._connection.fetch(query, BEGINS)
        }

    async def shown(self, account: str) -> tuple[Decimal, Decimal, Decimal]:
        """What the API shows: balance, overdraft, reserved amount."""
        held = await self._ledger.balance(account)
        return held.balance, held.overdraft, held.reserved

    async def sums(self) -> dict[tuple[str, str], tuple[int, Decimal]]:
        """Like `tests.model.credits.Book.sums`. Raises: AssertionError: the books do not balance."""
        assert await self._connection.fetch("SELECT * FROM credit_imbalances") == []
        query = """SELECT account, transaction_type, count(*) FILTER (WHERE transaction_type <> 'expiry'), sum(amount)
            FROM credit_transactions GROUP BY 1, 2"""
        return {(row[0], row[1]): (row[2], row[3]) for row in await self._connection.fetch(query)}

    async def _given(self, step: h.Given) -> Decimal:
        result = {"idempotency_key": step.key} if step.key else {}
        result |= {"expires_at": moment(step.ends).isoformat()} if step.ends is not None else {}
        statement = "SELECT new_balance FROM add_account_credits($1, $2, $3, p_metadata => $4::jsonb)"
        balance: Decimal = await self._connection.fetchval(
            statement, step.account, Decimal(step.amount), step.kind, json.dumps(result)
        )
        return balance

    async def _debited(self, step: h.Debited) -> Any:
        statement = "SELECT * FROM debit_account_credits($1, $2, 'openai', 'gpt-5', 1, 1, 'eco', $3::jsonb)"
        result = json.dumps({"idempotency_key": step.key} if step.key else {})
        row = await self._connection.fetchrow(statement, step.account, Decimal(step.amount), result)
        return row["new_balance"] if row["success"] else row["error_message"]

    async def _reserved(self, step: h.Reserved) -> Any:
        created = await self._ledger.authorize(
            step.account, Decimal(step.amount), step.seconds, step.call, Decimal(step.overdraft)
        )
        if created.reservation_id is not None:
            self._reservations[step.call] = created.reservation_id
        return created.reservation_id is not None, created.available

    async def _givenback(self, step: h.GivenBack) -> bool:
        there = self._reservations.get(step.call)
        return there is not None and await self._ledger.release(there)

    async def _settled(self, step: h.Settled) -> Any:
        row = await self._connection.fetchrow(
            "SELECT * FROM settle_reservation($1, $2)", step.call, Decimal(step.amount)
        )
        return row["new_balance"] if row["success"] else row["error_message"]

    async def _counted(self, step: h.Counted) -> int:
        known = {call.number for _, call in self._log}
        self._log += [(step.at, call) for call in step.calls if call.number not in known]
        return await self._projected(step.at, step.calls)

    async def _replayed(self, step: h.Replayed) -> int:
        await self._connection.execute("TRUNCATE projector_offsets, llm_usage_log, usage_parts")
        return sum([await self._projected(at, [call]) for at, call in self._log])

    async def _upkeep(self, step: h.Upkeep) -> None:
        await self._upkeep_task.once()

    async def _chosen(self, step: h.Chosen) -> None:
        statement = "UPDATE user_credits SET overdraft_policy = $2 WHERE account = $1"
        await self._connection.execute(statement, step.account, step.policy)

    async def _projected(self, at: int, calls: Any) -> int:
        """Returns how many of the calls were debited."""
        if not calls:
            return 0
        tp = TopicPartition(_TOPICS.enriched, 0)
        place = await self._projection.begin(tp, PartitionPosition("id", 0))
        recorded_ms = int(moment(at).timestamp() * 1000)
        records = [
            TopicRecord(place.next + n, recorded_ms, b"key", msgspec.json.encode(record_of(call)))
            for n, call in enumerate(calls)
        ]
        done = await self._projection.project(tp, place.next, place.next + len(records), records)
        assert done is not None
        return done.rows.get(CREDITS, 0)


def record_of(call: h.Call) -> EnrichedUsage:
    """A call of a user's account is made with the user's key; a call of an org's account by a user without an account."""
    kind, _, name = call.account.partition(":")
    user, org = (name, "other") if kind == "user" else ("zoe", name)
    ended = moment(call.ended).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    return EnrichedUsage(
        f"{call.number + 1:032x}", call.number, user, "user", call.decision, Decimal(call.cost), ended, ended,
        call_id=call.reserved, user_id=user, org_id=org, external_subscription_id="s", part="d-t-0-7",
        billed_usd=None if call.billed is None else Decimal(call.billed), rate="" if call.billed is None else "r1",
    )  # fmt: skip
