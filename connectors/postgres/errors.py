"""Translates errors of Postgres and its driver into decisions: repeat later, or permanently wrong.

Codes are SQLSTATE classes (https://www.postgresql.org/docs/current/errcodes-appendix.html). The messages of these errors
contain values of rows, so they are not passed on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from schemas.errors import Rejected, Unavailable
from schemas.reasons import (
    POSTGRES_AWAY,
    POSTGRES_BUSY,
    POSTGRES_DENIED,
    POSTGRES_ERROR,
    POSTGRES_FULL,
    POSTGRES_SCHEMA,
    POSTGRES_SLOW,
    ROW_REFUSED,
)

#: Reasons by SQLSTATE, or by its class. An unknown code counts as temporary, so that no usage is given up because of it.
_REASONS: Final = {
    "57014": POSTGRES_SLOW,  # statement timeout
    "42501": POSTGRES_DENIED,
    "08": POSTGRES_AWAY,
    "57": POSTGRES_AWAY,  # shutdown, crash, starting up
    "53": POSTGRES_FULL,  # disk, memory, connections
    "40": POSTGRES_BUSY,  # deadlock, serialization
    "55": POSTGRES_BUSY,  # locks
    "25": POSTGRES_BUSY,  # ended while idle in a transaction, or a standby
    "28": POSTGRES_DENIED,
    "3D": POSTGRES_SCHEMA,
    "3F": POSTGRES_SCHEMA,
    "42": POSTGRES_SCHEMA,  # a table or column is missing: `meterbridge db migrate`
}
#: Classes for a value, a constraint or a limit: the same row would fail again. "MB" is the class of our own functions.
_DATA: Final = ("21", "22", "23", "54", "MB")
_KEY_REUSED: Final = "MB001"
_NO_DATABASE: Final = "3D000"
_NO_PARTITION = "no partition of relation"


@contextmanager
def decisions() -> Iterator[None]:
    """Translates errors of the block.

    Raises: Unavailable with one of `POSTGRES_FAILURES`; Rejected `row_refused`: the data is wrong;
    `idempotency_conflict`: the key was used for a movement with other contents.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _decision(error) from error
    except TimeoutError as error:
        raise Unavailable(POSTGRES_SLOW, "no answer in time") from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if isinstance(error, ValueError) and not isinstance(error, asyncpg.exceptions.ClientConfigurationError):
            # The driver cannot encode the value as the type of its column, so repeating cannot help.
            raise Rejected(ROW_REFUSED, f"{type(error).__name__} before it was sent") from error
        raise Unavailable(POSTGRES_AWAY, type(error).__name__) from error


def _decision(error: asyncpg.PostgresError) -> Rejected | Unavailable:
    code = str(error.sqlstate or "")
    # The table of the month was dropped after the check that it exists; the next attempt makes it again.
    missing = code == "23514" and _NO_PARTITION in str(error)
    if code == _KEY_REUSED:
        return Rejected("idempotency_conflict", "the key was used for something else: take a new one")
    if code.startswith(_DATA) and not missing:
        return Rejected(
            ROW_REFUSED, f"{type(error).__name__} {code} {error.constraint_name or error.column_name or ''}"
        )
    reason = _REASONS.get(code) or _REASONS.get(code[:2], POSTGRES_ERROR)
    if code == _NO_DATABASE:
        return Unavailable(reason, "the database does not exist: make it with CREATE DATABASE, or correct its name")
    hint = ": run `meterbridge db migrate`" if reason == POSTGRES_SCHEMA else ""
    return Unavailable(reason, f"{type(error).__name__} {code}{hint}")
