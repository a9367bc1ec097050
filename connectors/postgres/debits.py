"""Debits the calls of a fetched batch from the credits of users and orgs that are prepaid, in the projector's transaction.

The database decides who pays and what is debited already (migrations/0013_credit_functions.sql), by the calls' rows in the
usage log. Here the calls are chosen that may concern an account, so that a batch of others costs one short query.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

#: The accounts of these names, and whether any reservation may wait for a call.
_PREPAID: Final = """
SELECT ARRAY(SELECT account FROM user_credits WHERE account = ANY($1::text[])),
    EXISTS (SELECT FROM credit_reservations)
"""
_RESERVED: Final = "SELECT DISTINCT call_id FROM credit_reservations WHERE call_id = ANY($1::text[])"
_DEBIT: Final = (Path(__file__).parent / "debits.sql").read_text(encoding="utf-8")
#: Indexes of columns in a usage row (connectors/postgres/rows.py).
_CUSTOMER, _ORG, _CALL_ID = 8, 10, 21


class Debited(NamedTuple):
    """What was debited of a batch.

    Fields:
        calls: debited now; not those of an earlier time.
        usd, overdraft_usd: Decimals: the sum, and the part of it that no balance covered.
    """

    calls: int
    usd: Any
    overdraft_usd: Any


async def debit(connection: Any, rows: Sequence[tuple[Any, ...]]) -> Debited | None:
    """Debit the calls of these usage rows, which are in the usage log, each once; None: no call is of a prepaid account.

    Args:
        connection: in the transaction that moves the projector's offset. It locks the accounts until its end, so this is
            the transaction's last work.
    """
    customers = {row[_CUSTOMER]: f"user:{row[_CUSTOMER]}" for row in rows}
    orgs = {row[_ORG]: f"org:{row[_ORG]}" for row in rows if row[_ORG]}
    accounts, reservations = await connection.fetchrow(_PREPAID, [*customers.values(), *orgs.values()])
    prepaid, reserved = set(accounts), set[str]()
    if reservations:
        call_ids = list({row[_CALL_ID] for row in rows if row[_CALL_ID]})
        reserved = {call_id for (call_id,) in await connection.fetch(_RESERVED, call_ids)}
    if not prepaid and not reserved:
        return None
    chosen = [
        (row[0], row[1])
        for row in rows
        if customers[row[_CUSTOMER]] in prepaid or orgs.get(row[_ORG]) in prepaid or row[_CALL_ID] in reserved
    ]
    return Debited(*await connection.fetchrow(_DEBIT, *zip(*chosen, strict=True)))
