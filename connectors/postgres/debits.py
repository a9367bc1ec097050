"""Debits the calls of a fetched batch from the credits of users and orgs that are prepaid, in the projector's transaction.

The database decides who pays and what is debited already (migrations/0017_call_debits.sql), by the calls' rows in the
usage log. Here the calls are chosen that may concern an account, so that a batch of others costs one short query.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas.reasons import CLIENT_CHOSE_USER, OTHERS_RESERVATION

#: The accounts of these names, and whether any reservation may wait for a call.
_PREPAID: Final = """
SELECT ARRAY(SELECT account FROM user_credits WHERE account = ANY($1::text[])),
    EXISTS (SELECT FROM credit_reservations)
"""
_RESERVED: Final = "SELECT DISTINCT call_id FROM credit_reservations WHERE call_id = ANY($1::text[])"
_DEBIT: Final = (Path(__file__).parent / "debits.sql").read_text(encoding="utf-8")
_UNDEBITED: Final = (Path(__file__).parent / "undebited.sql").read_text(encoding="utf-8")
#: Indexes of columns in a usage row (connectors/postgres/rows.py).
_CUSTOMER, _ID_KIND, _ORG, _CALL_ID, _USER, _ORGANIZATION = 8, 9, 10, 21, 23, 25


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
    accounts, reservations = await connection.fetchrow(_PREPAID, list(set().union(*own)))
    prepaid, reserved = set(accounts), set[str]()
    if reservations:
        call_ids = list({row[_CALL_ID] for row in rows if row[_CALL_ID]})
        reserved = {call_id for (call_id,) in await connection.fetch(_RESERVED, call_ids)}
    chosen = [(row[0], row[1]) for row, names in zip(rows, own, strict=True) if not prepaid.isdisjoint(names)]
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


def _accounts(row: tuple[Any, ...]) -> set[str]:
    """The accounts that the call names; which of them may pay is decided in the database."""
    users = {f"user:{name}" for name in (row[_CUSTOMER], row[_USER]) if name}
    return users | {f"org:{name}" for name in (row[_ORG], row[_ORGANIZATION]) if name}
