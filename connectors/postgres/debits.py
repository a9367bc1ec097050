"""Debits the calls of a fetched batch from the credits of prepaid users and orgs, in the projector's transaction.

The database decides who pays and how much was already debited (migrations/0017_call_debits.sql), from the calls' rows
in the usage log and from their parts. This module selects the calls that may concern an account, so that a batch
without such calls costs little. A call may be projected before or after its event; the later one corrects the debit
(corrections.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from connectors.postgres.corrections import reprice
from connectors.postgres.sql_files import sql
from schemas.reasons import CLIENT_CHOSE_USER, OTHERS_RESERVATION

#: The accounts of these names, whether a reservation may wait for a call, whether any account exists, and parts whose
#: event may bill a call differently from its record.
_PREPAID: Final = """
SELECT ARRAY(SELECT account FROM user_credits WHERE account = ANY($1::text[])),
    EXISTS (SELECT FROM credit_reservations), EXISTS (SELECT FROM user_credits), EXISTS (SELECT FROM corrected_parts)
"""
_RESERVED: Final = "SELECT DISTINCT call_id FROM credit_reservations WHERE call_id = ANY($1::text[])"
#: Parts whose billing is decided and may differ from the records of their calls: parts that were stored for this, and
#: parts of held calls.
_DECIDED: Final = """
SELECT part FROM corrected_parts WHERE part = ANY($1::text[])
UNION SELECT part FROM usage_parts
WHERE part = ANY($2::text[]) AND (event IS NOT NULL OR released_in IS NOT NULL OR status = 'written_off')
"""
_DEBIT: Final = sql("debits.sql")
_UNDEBITED: Final = sql("undebited.sql")
#: Indexes of columns in a usage row (connectors/postgres/rows_of_calls.py).
_CUSTOMER, _ID_KIND, _ORG, _CALL_ID, _USER, _ORGANIZATION, _PART, _HELD, _BILLED = 8, 9, 10, 21, 23, 25, 28, 29, 31


class DebitedBatch(NamedTuple):
    """The debits of a batch.

    Fields:
        calls: number of calls that were debited now, without earlier debits.
        usd, overdraft_usd: Decimals: the sum, and the part of it that no balance covered.
        refused: calls of an account that is not debited for them, by reason (schemas/reasons.py).
    """

    calls: int
    usd: Any
    overdraft_usd: Any
    refused: Mapping[str, int]


async def debit(
    connection: Any, rows: Sequence[tuple[Any, ...]], user_kinds: Sequence[str], again: Sequence[tuple[Any, ...]] = ()
) -> DebitedBatch | None:
    """Debit each call of these usage rows once; None = no call belongs to a prepaid account. The rows must be in the
    usage log.

    Args:
        connection: in the transaction that moves the projector's offset, and holds the lock `CALLS` since before it wrote
            the rows. It locks the accounts until its end, so this is the transaction's last work.
        user_kinds: kinds of customer ids that name a user who pays (`CREDITS_USER_KINDS`). Other kinds are chosen by
            clients.
        again: those of the rows that a rebuilt ledger has counted with another result. The difference is debited or given back.
    """
    own = [_accounts(row) for row in rows]
    accounts, reservations, in_use, corrected = await connection.fetchrow(_PREPAID, list(set().union(*own)))
    prepaid, reserved, decided = set(accounts), set[str](), set[str]()
    if in_use or any(row[_BILLED] is not None for row in rows):
        decided = await _decided(connection, rows, corrected=corrected)
        await reprice(connection, [(row[0], row[1]) for row in rows if row[_PART] in decided])
    if not in_use:
        return None
    if reservations:
        call_ids = list({row[_CALL_ID] for row in rows if row[_CALL_ID]})
        reserved = {call_id for (call_id,) in await connection.fetch(_RESERVED, call_ids)}
    recounted = {(row[0], row[1]) for row in again}
    if not (prepaid or decided or reserved or recounted):
        return None
    chosen = [
        (row[0], row[1], (row[0], row[1]) in recounted)
        for row, names in zip(rows, own, strict=True)
        if row[_PART] in decided or (row[0], row[1]) in recounted or not prepaid.isdisjoint(names)
    ]
    asked = [
        (row[0], row[1])
        for row in rows
        if row[_CALL_ID] in reserved or (row[_ID_KIND] not in user_kinds and f"user:{row[_CUSTOMER]}" in prepaid)
    ]
    calls = usd = overdraft = 0
    if chosen:
        identities, months, recounts = zip(*chosen, strict=True)
        calls, usd, overdraft = await connection.fetchrow(_DEBIT, identities, months, user_kinds, recounts)
    if not asked:
        return DebitedBatch(calls, usd, overdraft, {})
    users, others = await connection.fetchrow(_UNDEBITED, *zip(*asked, strict=True), user_kinds)
    return DebitedBatch(calls, usd, overdraft, {CLIENT_CHOSE_USER: users, OTHERS_RESERVATION: others})


async def _decided(connection: Any, rows: Sequence[tuple[Any, ...]], *, corrected: bool) -> set[str]:
    """Return the parts whose calls an event bills, or does not bill, possibly differently from the calls' records."""
    held = {row[_PART] for row in rows if row[_HELD]}
    stored = {row[_PART] for row in rows if row[_PART]} if corrected else set()
    if not (held or stored):
        return set()
    return {part for (part,) in await connection.fetch(_DECIDED, list(stored), list(held))}


def _accounts(row: tuple[Any, ...]) -> set[str]:
    """Return the accounts that the call names. The database decides which of them may pay."""
    users = {f"user:{name}" for name in (row[_CUSTOMER], row[_USER]) if name}
    return users | {f"org:{name}" for name in (row[_ORG], row[_ORGANIZATION]) if name}
