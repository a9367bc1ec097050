"""Every shell block of README.md and docs/ runs as it stands, against real processes, Kafka and Postgres.

The tutorial has an installation of its own. README.md starts another one, in which the other pages are typed after it.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.database import fresh_database
from tests.support.kafka import Kafka
from tests.support.page_shell import ROOT, PageShell, blocks
from tests.support.ports import free_port, free_ports_in_a_row

#: What a page stands on: files, variables and usage that a reader has when he comes to it.
FILES = {
    "customers.csv": "litellm_customer_id,lago_customer_id,lago_organization_id\nbeta,beta-inc,main\n",
    "orgs.json": '[{"org_id": "org_beta", "name": "Beta"}]',
    "plans.csv": "org_id,plan_code\norg_beta,ai_basic\n",
    "mappings.json": '[{"user_id": "acme-inc", "org_id": "org_acme"}]',
    "users.sql": "SELECT 'acme-inc' AS user_id, 'org_acme' AS org_id, 'Acme' AS org_name, 'a@acme.io' AS email",
}
#: In the order in which they are typed.
PAGES = (
    "README.md",
    "docs/access.md",
    "docs/ingress.md",
    "docs/mapping.md",
    "docs/operations.md",
    "docs/orgs.md",
    "docs/sdk.md",
)


@pytest.fixture
async def shell(kafka: Kafka, topic_prefix: str, postgres_url: str, tmp_path: Path) -> AsyncIterator[PageShell]:
    """A shell in what looks like a fresh clone; ports and addresses of the pages lead to this test's own."""
    folder = tmp_path / "meterbridge"
    (folder / ".meterbridge" / "litellm" / "bin").mkdir(parents=True)
    for name in ("connectors", "schemas", "streams", "tests", "docs", "deploy", "Makefile", "pyproject.toml", "constraints.txt"):
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
            "WEBHOOK_SECRET": "a-secret-of-thirty-two-characters",
            "COLUMNS": "250",
            "no_proxy": "*",
        }
        shell = PageShell(folder, environ, written, topic_prefix)
        await shell.start()
        try:
            yield shell
        finally:
            await shell.stop()
            subprocess.run(
                [sys.executable, "-m", "tests.support.services", "--stop"], cwd=folder, env=environ, check=True
            )


async def typed(shell: PageShell, page: str) -> None:
    for block in blocks(ROOT / page):
        if block.how != "not run":
            await shell.run(block)


async def test_the_tutorial_bills_a_call_and_proves_it(shell: PageShell) -> None:
    await typed(shell, "docs/tutorial.md")
