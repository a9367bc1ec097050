"""Every shell block of README.md and docs/ runs unchanged, with real processes, Kafka and Postgres.

The tutorial has its own installation. README.md starts another one with steps of the tutorial, and the other pages are
typed in it afterwards. Blocks that need Docker are typed by `make deploy-test`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.database import fresh_database
from tests.support.kafka import Kafka
from tests.support.page_programs import programs
from tests.support.page_shell import PAGES, ROOT, RUNBOOKS, TUTORIAL, Block, PageShell, blocks
from tests.support.ports import free_port, free_ports_in_a_row

SUBSCRIBE, RECORD = programs("sdk.md")[:2]
#: What a page requires: files, variables and usage that its reader has, and programs that the reader saves.
FILES = {
    "subscribe.py": SUBSCRIBE,
    "record.py": RECORD,
    "customers.csv": "litellm_customer_id,lago_customer_id,lago_organization_id\nbeta,beta-inc,main\n",
    "orgs.json": '[{"org_id": "org_beta", "name": "Beta"}]',
    "plans.csv": "org_id,plan_code\norg_beta,ai_basic\n",
    "mappings.json": '[{"user_id": "acme-inc", "org_id": "org_acme"}]',
    "users.sql": "SELECT 'acme-inc' AS user_id, 'org_acme' AS org_id, 'Acme' AS org_name, 'a@acme.io' AS email",
}
#: README.md sends its reader to these steps of the tutorial first. The test's Kafka and Postgres stand in for steps 1 and 2.
STEPS = ("3. Settings", "4. Make", "5. Start")
#: Usage and keys that a reader of a page has.
BEFORE = {
    "docs/stuck-usage.md": """
curl -s localhost:8080/webhooks/litellm -H "Authorization: Bearer $WEBHOOK_TOKEN" \\
  -d '{"id": "flood-1", "customer_id": "attack-1", "model": "gpt-4o", "cost_usd": "1"}'
until meterbridge held list --match 'attack-*' | grep attack-1; do sleep 1; done""",
}


@pytest.fixture
async def shell(kafka: Kafka, topic_prefix: str, postgres_url: str, tmp_path: Path) -> AsyncIterator[PageShell]:
    """A shell in a folder like a fresh clone; ports and addresses on the pages lead to this test's own."""
    folder = tmp_path / "meterbridge"
    (folder / ".meterbridge" / "litellm" / "bin").mkdir(parents=True)
    for name in (
        "connectors",
        "schemas",
        "streams",
        "tests",
        "docs",
        "deploy",
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
    ):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    litellm = folder / ".meterbridge" / "litellm" / "bin" / "litellm"
    litellm.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/litellm_stand_in.py "$@"\n', "utf-8")
    litellm.chmod(0o755)
    ports = {number: free_port() for number in (3000, 3002, 4000, 8080, 9080)}
    ports |= dict(zip(range(9090, 9094), free_ports_in_a_row(4), strict=True))
    async with fresh_database(postgres_url) as database:
        written = {rf"(?<!\d){number}(?!\d)": str(port) for number, port in ports.items()} | {
            r"KAFKA_BOOTSTRAP_SERVERS=\S+": f"KAFKA_BOOTSTRAP_SERVERS={kafka.bootstrap}",
            r"(?<!-u )DATABASE_URL=\S+": f"DATABASE_URL={database}",
        }
        environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **{name: os.environ[name] for name in ("HOME", "JAVA_HOME", "DOCKER_HOST") if name in os.environ},
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "DATABASE_URL": database,
            "TOPIC_PREFIX": topic_prefix,
            "PORT": str(ports[8080]),
            "METRICS_PORT": str(ports[9090]),
            "COLUMNS": "250",
            "no_proxy": "*",
        }
        shell = PageShell(folder, environ, written, topic_prefix, forked=True)
        await shell.start()
        try:
            yield shell
        finally:
            await shell.stop()
            ended = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.services", "--stop"), cwd=folder, env=environ
            )
            assert await ended.wait() == 0


async def typed(shell: PageShell, page: str) -> None:
    for block in blocks(ROOT / page):
        if block.how != "not run":
            await shell.run(block)


@pytest.mark.long
async def test_the_tutorial_bills_a_call_and_verifies_it(shell: PageShell) -> None:
    await typed(shell, TUTORIAL)


@pytest.mark.long
async def test_the_readme_and_the_pages_after_it_run_unchanged(shell: PageShell) -> None:
    await shell.run(given("export WEBHOOK_SECRET=a-secret-of-thirty-two-characters WEBHOOK_TIMESTAMP_REQUIRED=1"))
    await shell.run(given("export PROVIDER_KEYS_SECRET=$(openssl rand -base64 32 | tr '+/' '-_')"))
    await readme(shell)
    await run_checks_of_runbooks(shell)
    for page in PAGES[1:]:
        if page in BEFORE:
            await shell.run(given(BEFORE[page]))
        await typed(shell, page)


async def readme(shell: PageShell) -> None:
    """Type the steps of the tutorial that README.md begins with, then README.md."""
    steps = [block for block in blocks(ROOT / TUTORIAL) if block.chapter.startswith(STEPS)]
    assert len(steps) == 5
    own = [block for block in blocks(ROOT / "README.md") if block.how != "not run"]
    for block in steps + own:
        await shell.run(block)


async def run_checks_of_runbooks(shell: PageShell) -> None:
    """Type the checks of the runbooks; several of them are the same."""
    different = {block.text: block for page in RUNBOOKS for block in blocks(page) if block.how != "not run"}
    for block in different.values():
        await shell.run(block)


def given(text: str, prints: str = "") -> Block:
    """What a reader has done before."""
    return Block("before the page", text + "\n", "", "", prints)
