"""`meterbridge db init` with real Postgres: repeatable, all or nothing, and destructive only after the database's name."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.postgres import initialise
from connectors.postgres.migrate import Migration, migrate, migrations
from tests.support.credits import account, balanced, give
from tests.support.database import fresh_database, rows


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with fresh_database(postgres_url) as url:
        yield url


async def init(url: str, *words: str, typed: str = "") -> Any:
    environ = {"DATABASE_URL": url, "POSTGRES_HOST": ""}
    return await asyncio.to_thread(CliRunner().invoke, app, ["db", "init", *words], env=environ, input=typed)


async def there(url: str) -> int:
    return int((await rows(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"))[0][0])


def name_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


async def test_db_init_creates_everything_and_prints_what_it_verified(url: str) -> None:
    result = await init(url, "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert len(answer["applied"]) == len(migrations()) and answer["database"] == name_of(url)
    verified = answer["verified"]
    assert {
        "user_credits",
        "credit_transactions",
        "llm_usage_log",
        "credit_packages",
        "power_level_configs",
        "schema_version",
    } <= {*verified["tables"]}
    assert {"debit_user_credits", "add_user_credits", "get_user_balance"} <= {*verified["functions"]}
    assert len(verified["indexes"]) >= 25 and "user_credits_updated_at" in verified["triggers"]
    assert verified["rows of credit_packages"] == ["Enterprise", "Pro", "Starter", "Value"]
    assert verified["rows of power_level_configs"] == ["balanced", "eco", "precision"]
    for step in ("Applied 0001_usage_log.", "Applied 0012_credits.", "Verifying."):
        assert step in result.stderr.splitlines()


async def test_everything_that_the_migrations_create_is_known_to_it(url: str) -> None:
    """Names found in the files equal those in the catalogue: a reset would leave nothing behind."""
    await migrate(url)
    names = initialise.objects_of(migrations())
    for kind, query in initialise._THERE.items():
        found = {name for (name,) in await rows(url, query)}
        beside = {
            name for name in found if kind == "INDEX" and (name.endswith(("_key", "_pkey")) or "llm_usage_log_" in name)
        }
        assert names[kind] <= found and found - beside <= names[kind], kind


async def test_repeating_it_changes_nothing(url: str) -> None:
    await init(url, "--test-data")
    await give(url, "user:ada", "3")
    await rows(url, "DELETE FROM credit_packages WHERE name = 'Enterprise'")
    before = await rows(url, "SELECT account, balance FROM user_credits ORDER BY 1")
    result = await init(url, "--test-data", "--json")
    assert (result.exit_code, json.loads(result.stdout)["applied"]) == (0, [])
    assert await rows(url, "SELECT account, balance FROM user_credits ORDER BY 1") == before
    await balanced(url)


async def test_the_test_data_has_every_tier(url: str) -> None:
    assert (await init(url, "--test-data")).exit_code == 0
    assert {tier for (tier,) in await rows(url, "SELECT tier FROM user_credits WHERE balance > 0")} == {
        *("free", "starter", "professional", "enterprise")
    }
    await balanced(url)


@pytest.mark.parametrize(("words", "typed"), [((), "yes\n"), ((), "\n"), (("--yes", "other"), "")])
async def test_a_reset_without_the_databases_name_changes_nothing(url: str, words: tuple[str, ...], typed: str) -> None:
    await init(url)
    await give(url, "user:ada", "3")
    result = await init(url, "--reset", *words, typed=typed)
    assert result.exit_code == 2 and "nothing was changed" in result.stderr
    assert (await account(url, "user:ada"))[0] == 3


@pytest.mark.parametrize("typed", [False, True])
async def test_a_reset_drops_only_our_objects(url: str, typed: bool) -> None:
    await rows(url, "CREATE TABLE of_others AS SELECT 1")
    await init(url)
    await rows(url, "SELECT ensure_usage_month('2026-11-01')")
    await give(url, "user:ada", "3")
    words = () if typed else ("--yes", name_of(url))
    result = await init(url, "--reset", *words, typed=f"{name_of(url)}\n" if typed else "")
    assert result.exit_code == 0, result.stderr
    assert await rows(url, "SELECT count(*) FROM user_credits") == [(0,)]
    assert await rows(url, "SELECT count(*), to_regclass('llm_usage_log_2026_11') FROM of_others") == [(1, None)]


async def test_an_error_leaves_everything_unchanged(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await init(url)
    await give(url, "user:ada", "3")
    before = await there(url)
    bad = [*migrations(), Migration(9000, "bad", "CREATE TABLE bad (); SELECT 1 / 0")]
    for module in ("initialise", "migrate"):
        monkeypatch.setattr(f"connectors.postgres.{module}.migrations", lambda: bad)
    result = await init(url, "--reset", "--yes", name_of(url))
    assert result.exit_code == 1 and "9000_bad" in result.stderr
    assert (await there(url), (await account(url, "user:ada"))[0]) == (before, 3)


async def test_an_object_dropped_by_hand_is_named(url: str) -> None:
    await init(url)
    for statement in ("DROP FUNCTION expire_credits", "DROP INDEX user_credits_tier"):
        await rows(url, statement)
    result = await init(url)
    assert result.exit_code == 1 and "missing: expire_credits, user_credits_tier" in result.stderr


async def test_the_option_yes_alone_is_refused(url: str) -> None:
    assert (await init(url, "--yes", "x")).exit_code == 2
