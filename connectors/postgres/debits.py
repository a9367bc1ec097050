"""Debits the calls of a fetched batch from the credits of users and orgs that are prepaid, in the projector's transaction.

The database decides who pays and what is debited already (migrations/0017_call_debits.sql), by the calls' rows in the
usage log and by their parts. Here the calls are chosen that may concern an account, so that a batch of others costs little.
A call may be projected before its event or after it: the later one of the two corrects what was debited.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas.reasons import CLIENT_CHOSE_USER, OTHERS_RESERVATION


def _sql(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


#: The accounts of these names, whether any reservation may wait for a call, and whether there are accounts at all.
_PREPAID: Final = """
SELECT ARRAY(SELECT account FROM user_credits WHERE account = ANY($1::text[])),
    EXISTS (SELECT FROM credit_reservations), EXISTS (SELECT FROM user_credits)
"""
_RESERVED: Final = "SELECT DISTINCT call_id FROM credit_reservations WHERE call_id = ANY($1::text[])"
#: Until the end of the transaction. Of a call and its event that are projected at once, one waits here and then sees the other.
_CALLS_LOCK: Final = "SELECT pg_advisory_xact_lock_shared(hashtext('meterbridge calls and events'))"
_EVENTS_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('meterbridge calls and events'))"
_DECIDED: Final = """
SELECT part FROM usage_parts
WHERE part = ANY($1::text[]) AND (event IS NOT NULL OR released_in IS NOT NULL OR status = 'written_off')
"""
_IN_USE: Final = "SELECT EXISTS (SELECT FROM user_credits)"
_CALLS: Final = "SELECT identity, month::text FROM llm_usage_log WHERE part = ANY($1::text[]) AND part <> ''"
_DEBIT: Final = _sql("debits.sql")
_UNDEBITED: Final = _sql("undebited.sql")
_MOVED_PARTS: Final = _sql("moved_parts.sql")
_EVENT_PRICES: Final = _sql("event_prices.sql")
#: Indexes of columns in a usage row (connectors/postgres/rows.py).
_CUSTOMER, _ID_KIND, _ORG, _CALL_ID, _USER, _ORGANIZATION, _PART, _HELD, _BILLED = 8, 9, 10, 21, 23, 25, 28, 29, 31
#: Calls of one statement.
_MOST: Final = 4000
_Keys = Sequence[tuple[bytes, str]]


class Debited(NamedTuple):
    """What was debited of a batch.

    Fields:
        calls: debited now; not those of an earlier time.
        usd, overdraft_usd: Decimals: the sum, and the part of it that no balance covered.
        refused: calls that name an account which is not debited for them, by reason (schemas/reasons.py).
    """

    calls: int
    usd: Any
    overdraft_usd: Any
    refused: Mapping[str, int]


async def debit(connection: Any, rows: Sequence[tuple[Any, ...]], user_kinds: Sequence[str]) -> Debited | None:
    """Debit the calls of these usage rows, which are in the usage log, each once; None: no call is of a prepaid account.

    Args:
        connection: in the transaction that moves the projector's offset. It locks the accounts until its end, so this is
            the transaction's last work.
        user_kinds: kinds of customer ids that name a user who pays (`CREDITS_USER_KINDS`). A client chooses the others.
    """
    own = [_accounts(row) for row in rows]
    accounts, reservations, in_use = await connection.fetchrow(_PREPAID, list(set().union(*own)))
    prepaid, reserved, decided = set(accounts), set[str](), set[str]()
    if in_use or any(row[_HELD] and row[_BILLED] is not None for row in rows):
        await connection.execute(_CALLS_LOCK)
        parts = list({row[_PART] for row in rows if row[_PART]})
        decided = {part for (part,) in await connection.fetch(_DECIDED, parts)}
        await _reprice(connection, [(row[0], row[1]) for row in rows if row[_PART] in decided])
    if not in_use:
        return None
    if reservations:
        call_ids = list({row[_CALL_ID] for row in rows if row[_CALL_ID]})
        reserved = {call_id for (call_id,) in await connection.fetch(_RESERVED, call_ids)}
    chosen = [
        (row[0], row[1])
        for row, names in zip(rows, own, strict=True)
        if row[_PART] in decided or not prepaid.isdisjoint(names)
    ]
    asked = [
        (row[0], row[1])
        for row in rows
        if row[_CALL_ID] in reserved or (row[_ID_KIND] not in user_kinds and f"user:{row[_CUSTOMER]}" in prepaid)
    ]
    if not chosen and not asked:
        return None
    calls = usd = overdraft = 0
    if chosen:
        calls, usd, overdraft = await connection.fetchrow(_DEBIT, *zip(*chosen, strict=True), user_kinds)
    if not asked:
        return Debited(calls, usd, overdraft, {})
    users, others = await connection.fetchrow(_UNDEBITED, *zip(*asked, strict=True), user_kinds)
    return Debited(calls, usd, overdraft, {CLIENT_CHOSE_USER: users, OTHERS_RESERVATION: others})


async def correct(connection: Any, parts: Sequence[str], user_kinds: Sequence[str], *, rated: bool) -> int:
    """Debit, and give back, what these parts are billed at now beside what was taken for their calls; how many calls.

    Args:
        connection: in a transaction that has written the parts' rows, as its last work.
        parts: ids of new events, of the held parts in them, or of parts that were written off.
        rated: whether a rate card may have priced one of them: then the usage log gets the prices of the events, too.
    """
    if not parts:
        return 0
    in_use = await connection.fetchval(_IN_USE)
    if not (in_use or rated):
        return 0
    moved = [part for (part,) in await connection.fetch(_MOVED_PARTS, parts)]
    if not moved:
        return 0
    await connection.execute(_EVENTS_LOCK)
    calls = [tuple(row) for row in await connection.fetch(_CALLS, moved)]
    count = 0
    for start in range(0, len(calls), _MOST):
        some = calls[start : start + _MOST]
        await _reprice(connection, some)
        if in_use:
            count += (await connection.fetchrow(_DEBIT, *zip(*some, strict=True), user_kinds))[0]
    return count


async def _reprice(connection: Any, calls: _Keys) -> None:
    if calls:
        await connection.execute(_EVENT_PRICES, *zip(*calls, strict=True))


def _accounts(row: tuple[Any, ...]) -> set[str]:
    """The accounts that the call names; which of them may pay is decided in the database."""
    users = {f"user:{name}" for name in (row[_CUSTOMER], row[_USER]) if name}
    return users | {f"org:{name}" for name in (row[_ORG], row[_ORGANIZATION]) if name}
