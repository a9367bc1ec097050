"""Credits are restored from a backup as docs/operations.md says: calls in a topic since then are debited once, other
movements are repeated.
"""

import os
import re
import shlex
import subprocess
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from connectors.postgres.migrate import migrate
from tests.support.credits import account, balanced, give, prepaid_since, reserve, sqlstate
from tests.support.database import fresh_database, migrated_database, rows
from tests.support.eventually import PATIENCE
from tests.support.history import TOPICS
from tests.support.postgres import binaries
from tests.support.projection import Writer, usage

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def run(command: str, folder: Path, **environ: str) -> None:
    """A command on the page, with the programs of the server's version."""
    path = f"{binaries()}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path} | environ,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def test_a_restored_backup_debits_later_calls_and_nothing_twice(postgres_url: str, tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    [dump] = re.findall(r"^pg_dump .*$", text, re.MULTILINE)
    [restore] = re.findall(r"`(pg_restore .*?)`", text)
    calls = [usage(n, id_kind="user", user_id="acme", cost_usd=Decimal("0.3")) for n in range(5)]
    async with migrated_database(postgres_url) as url, fresh_database(postgres_url) as restored:
        await give(url, "user:acme", "10", idempotency_key="first")
        await prepaid_since(url, "2026-11-20 00:00Z")
        async with Writer(url) as writer:
            await writer.put(TOPICS.enriched, *calls[:2])
        await reserve(url, "user:acme", "1", "c1")
        run(dump, tmp_path, DATABASE_URL=url)
        async with Writer(url) as writer:
            await writer.put(TOPICS.enriched, *calls[2:])
        await give(url, "user:acme", "5", idempotency_key="second")
        before = await account(url, "user:acme")

        run(restore.replace("meterbridge2", shlex.quote(restored), 1), tmp_path)
        assert await migrate(restored) == []
        await balanced(restored)
        async with Writer(restored) as writer:  # it continues from the backup's position
            await writer.put(TOPICS.enriched, *calls[2:])
        for key, dollars in (("first", "10"), ("second", "5")):  # all grants of the audit log, also those of before
            await give(restored, "user:acme", dollars, idempotency_key=key)
        assert await account(restored, "user:acme") == before == (Decimal("13.5"), 0)
        await balanced(restored)
        assert await sqlstate(restored, "DELETE FROM ledger_entries") == "MB002"
        [(created,)] = await rows(restored, "SELECT created_at FROM credit_reservations")
        assert isinstance(created, datetime)
