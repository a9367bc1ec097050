"""The columns of tables, as Postgres has them."""

from collections.abc import Iterable

from tests.support.database import rows


async def columns_of(url: str, tables: Iterable[str]) -> dict[str, str]:
    """Return the names of each table's columns in order, separated by spaces."""
    query = """SELECT table_name::text, string_agg(column_name, ' ' ORDER BY column_name COLLATE "C")
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name = ANY($1) GROUP BY 1"""
    return dict(await rows(url, query, list(tables)))


async def types_of(url: str, tables: Iterable[str], pattern: str) -> set[str]:
    """Return the types of all columns of these tables whose name fits the regular expression."""
    query = """SELECT DISTINCT data_type::text FROM information_schema.columns WHERE table_schema = 'public'
        AND table_name = ANY($1) AND column_name ~ $2"""
    return {name for (name,) in await rows(url, query, list(tables), pattern)}
