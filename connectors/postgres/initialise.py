"""`meterbridge db init`: makes tables, seed rows and optional test data, and checks that everything exists, in one
transaction.

The list of our objects is read from the migrations, so a new migration needs no change here.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from connectors.postgres.migrate import LOCK, Migration, apply_due, migrations
from connectors.postgres.pool import connected
from schemas.errors import Rejected

_TEST_DATA: Final = Path(__file__).parent / "test_data.sql"
#: A statement that makes or drops an object, at the beginning of a line; statements within functions are indented.
_MADE: Final = re.compile(
    r"^(?:CREATE|DROP)(?: OR REPLACE)?(?: UNIQUE| MATERIALIZED| CONSTRAINT)? (TABLE|VIEW|FUNCTION|INDEX|TRIGGER)"
    r"(?: CONCURRENTLY)?(?: IF (?:NOT )?EXISTS)? ([a-z_0-9]+)",
    re.MULTILINE,
)
#: Queries for the names of each kind of object in a schema.
_THERE: Final = {
    "TABLE": "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')",
    "VIEW": "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('v', 'm')",
    "FUNCTION": "SELECT proname::text FROM pg_proc WHERE pronamespace = current_schema()::regnamespace",
    "INDEX": "SELECT indexname::text FROM pg_indexes WHERE schemaname = current_schema()",
    "TRIGGER": """
        SELECT tgname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND NOT tgisinternal
    """,
}
#: The rows of a new installation.
_SEEDS: Final = {
    "credit_packages": ("SELECT name FROM credit_packages", {"Starter", "Value", "Pro", "Enterprise"}),
    "power_level_configs": ("SELECT power_level FROM power_level_configs", {"eco", "balanced", "precision"}),
}
#: Views and materialized views have different DROP statements, and functions need their arguments.
_DROP: Final = """
SELECT format('DROP %s IF EXISTS %s CASCADE', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, oid::regclass)
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relname = ANY($1::text[]) AND relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT format('DROP FUNCTION IF EXISTS %s CASCADE', oid::regprocedure)
FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proname = ANY($2::text[])
"""


class DatabaseContents(NamedTuple):
    """The objects that `reset` would drop, and the number of credit accounts."""

    database: str
    objects: int
    accounts: int


class Initialised(NamedTuple):
    """The result; `verified`: the names that were checked and found, by kind."""

    database: str
    applied: list[Migration]
    verified: dict[str, set[str]]


def objects_of(files: Sequence[Migration]) -> dict[str, set[str]]:
    """Return the names of the tables, views, functions, indexes and triggers that exist after these migrations, by
    kind.
    """
    names: dict[str, set[str]] = {kind: set() for kind in _THERE}
    names["TABLE"].add("schema_version")
    for migration in files:
        for found in _MADE.finditer(migration.sql):
            kind, name = found.groups()
            if found[0].startswith("DROP"):
                names[kind].discard(name)
            else:
                names[kind].add(name)
    return names


async def contents(url: str) -> DatabaseContents:
    """Return the objects of Meterbridge in the database. Raises: Unavailable: Postgres does not answer."""
    async with connected(url) as connection:
        drops = await _drops(connection)
        accounts = 0
        if await connection.fetchval("SELECT to_regclass('user_credits')"):
            accounts = await connection.fetchval("SELECT count(*) FROM user_credits")
        return DatabaseContents(await connection.fetchval("SELECT current_database()"), len(drops), accounts)


async def initialise(url: str, *, reset: bool, test_data: bool, progress: Callable[[str], None]) -> Initialised:
    """Migrate the tables to this version and verify them; any error undoes all changes.

    Args:
        reset: first drop our objects with all rows. Other tables in the same schema stay.
        test_data: add prepaid users; repeating it adds nothing.
        progress: called with a sentence before each step.

    Raises:
        MeterbridgeError, Unavailable, Rejected: see `connectors.postgres.migrate.migrate`.
        Rejected: `not_initialised`: an object is missing after the migrations, because it was dropped by hand.
    """
    files = migrations()
    async with connected(url) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        async with connection.transaction():
            if reset:
                progress("Dropping the tables.")
                await connection.execute("SET LOCAL lock_timeout = '30s'")
                for statement in await _drops(connection):
                    await connection.execute(statement)
            done = await apply_due(
                connection, applied=lambda migration: progress(f"Applied {migration.version:04d}_{migration.name}.")
            )
            if test_data:
                progress("Adding test data.")
                await connection.execute(_TEST_DATA.read_text(encoding="utf-8"))
            progress("Verifying.")
            verified = await _verified(connection, files, done)
        return Initialised(await connection.fetchval("SELECT current_database()"), done, verified)


async def _drops(connection: Any) -> list[str]:
    names = objects_of(migrations())
    rows = await connection.fetch(_DROP, list(names["TABLE"] | names["VIEW"]), list(names["FUNCTION"]))
    return [statement for (statement,) in rows]


async def _verified(connection: Any, files: Sequence[Migration], new: Sequence[Migration]) -> dict[str, set[str]]:
    wanted = objects_of(files)
    found = {kind: {name for (name,) in await connection.fetch(query)} for kind, query in _THERE.items()}
    verified = {f"{kind.lower()}s" if kind != "INDEX" else "indexes": wanted[kind] for kind in _THERE}
    missing = sorted(name for kind, names in wanted.items() for name in names - found[kind])
    seeded = any("INSERT INTO credit_packages" in migration.sql for migration in new)
    for table, (query, names) in _SEEDS.items():
        there = {name for (name,) in await connection.fetch(query)}
        verified[f"rows of {table}"] = names & there
        if seeded:  # afterwards the operator owns the rows
            missing += sorted(names - there)
    if missing:
        raise Rejected("not_initialised", f"missing: {', '.join(missing)}; nothing was changed")
    return verified
