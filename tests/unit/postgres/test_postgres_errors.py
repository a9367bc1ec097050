"""An error of Postgres says what to do next."""

import asyncpg
import pytest

from connectors.postgres.errors import decisions
from schemas.errors import Unavailable


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            asyncpg.InvalidCatalogNameError('database "usgae" does not exist'),
            "make it with CREATE DATABASE, or correct its name",
        ),
        (asyncpg.UndefinedTableError('relation "llm_usage_log" does not exist'), "run `meterbridge db migrate`"),
    ],
)
def test_a_missing_database_is_not_made_by_a_migration_and_a_missing_table_is(
    error: asyncpg.PostgresError, advice: str
) -> None:
    with pytest.raises(Unavailable) as told, decisions():
        raise error
    assert told.value.reason == "postgres_schema"
    assert told.value.detail.endswith(advice)
