"""Applies the migrations, which are plain SQL files. One process at a time applies them in order, each once and in its
own transaction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import asyncpg

from connectors.postgres.pool import connected
from schemas.errors import MeterbridgeError, Rejected, Unavailable
from schemas.reasons import POSTGRES_BUSY

FOLDER: Final = Path(__file__).parent / "migrations"
#: Makes database roles for the processes, with the rights that each needs.
ROLES: Final = Path(__file__).parent / "roles.sql"
_THERE: Final = """
SELECT count(*) = 3 FROM pg_roles WHERE rolname IN ('meterbridge_projector', 'meterbridge_api', 'meterbridge_reader')
"""
#: The advisory lock of migrations; an arbitrary number that must not change between releases.
LOCK: Final = 7_416_318_201
#: How long a change of a table waits for its readers. Other sessions queue behind this wait.
_LOCK_WAIT = "30s"

_CREATE = """
CREATE TABLE IF NOT EXISTS schema_version (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_RECORD = "INSERT INTO schema_version (version, name, checksum) VALUES ($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file, `NNNN_name.sql`; its checksum does not depend on the line endings."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text in hexadecimal."""
        return sha256(self.sql.encode()).hexdigest()


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """Return the migrations of a folder, in the order in which they are applied."""
    files = []
    for path in sorted(folder.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        files.append(Migration(int(number), name, path.read_text(encoding="utf-8")))
    return files


async def migrate(url: str, selected: Sequence[Migration] | None = None) -> list[Migration]:
    """Apply the pending migrations, and return them. A failed one changes nothing; those before it stay applied.

    If two processes migrate at the same time, the second waits for the first, and finds nothing to do.

    Raises:
        MeterbridgeError: see `pending`.
        Unavailable: Postgres does not answer, or a table stayed locked; repeating is safe.
        Rejected: `migration_failed`: the data in the tables does not fit the change.
    """
    async with connected(url) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        return await apply_due(connection, selected)


async def apply_due(
    connection: Any,
    selected: Sequence[Migration] | None = None,
    applied: Callable[[Migration], None] = lambda _migration: None,
) -> list[Migration]:
    """Do the same as `migrate` on a connection that holds `LOCK`; call `applied` after each migration. Raises: see
    `migrate`.
    """
    await connection.execute(_CREATE)
    due = await _pending(connection, migrations() if selected is None else selected)
    for migration in due:
        await _apply(connection, migration)
        applied(migration)
    if due and selected is None and await connection.fetchval(_THERE):
        await connection.execute(ROLES.read_text(encoding="utf-8"))
    return due


async def make_roles(url: str) -> None:
    """Make the missing database roles, and grant each the rights that it needs. Repeating it is safe.

    Raises:
        Rejected: `roles_refused`: the account may not make roles, or does not own the tables.
        Unavailable: Postgres does not answer, or has no tables.
    """
    async with connected(url) as connection:
        try:
            await connection.execute(ROLES.read_text(encoding="utf-8"))
        except asyncpg.InsufficientPrivilegeError as error:
            sentence = "the account of DATABASE_URL may not make roles, or does not own the tables"
            raise Rejected("roles_refused", sentence) from error


async def pending(url: str, selected: Sequence[Migration] | None = None) -> list[Migration]:
    """Return the migrations that `migrate` would apply. It changes nothing.

    Raises:
        MeterbridgeError: `migration_changed`: the file of an applied migration was changed, so the state of the tables is
            unknown; `not_utf8`: the database cannot store every text.
        Unavailable: Postgres does not answer.
    """
    async with connected(url) as connection:
        return await _pending(connection, migrations() if selected is None else selected)


async def _pending(connection: Any, selected: Sequence[Migration]) -> list[Migration]:
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        raise MeterbridgeError("not_utf8", "the database's encoding is not UTF8: create one with ENCODING 'UTF8'")
    applied: dict[int, str] = {}
    if await connection.fetchval("SELECT to_regclass('schema_version')"):
        applied = dict(await connection.fetch("SELECT version, checksum FROM schema_version"))
    for migration in selected:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise MeterbridgeError(
                "migration_changed",
                f"migration {migration.version:04d}_{migration.name} was changed after it had been applied here; "
                "restore the file, and put the change into a new one",
            )
    return [migration for migration in selected if migration.version not in applied]


async def _apply(connection: Any, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
            await connection.execute(migration.sql)
            await connection.execute(_RECORD, migration.version, migration.name, migration.checksum)
    except asyncpg.LockNotAvailableError as error:
        raise Unavailable(
            POSTGRES_BUSY, f"a table stayed locked for {_LOCK_WAIT}; nothing was changed, repeat"
        ) from error
    except asyncpg.PostgresError as error:
        if str(error.sqlstate or "").startswith(("08", "53", "57")):
            raise
        raise Rejected(
            "migration_failed", f"{migration.version:04d}_{migration.name}: {type(error).__name__}"
        ) from error
