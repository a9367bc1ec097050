"""The commands of docs/key-rotation.md, typed from top to bottom while calls arrive: none is refused, and each is
billed once.
"""

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.support.database import fresh_database, rows
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.kafka.maven import java_command, short_lived
from tests.support.kafka.secured import ADMIN, CERTIFICATE, SCRAM, SecuredKafka
from tests.support.page_shell import ROOT, Block, PageShell, blocks
from tests.support.ports import free_port, free_ports_in_a_row
from tests.support.postgres import LocalPostgres

pytestmark = pytest.mark.kafka

PAGE = ROOT / "docs" / "key-rotation.md"
ACCOUNT, OLD_PASSWORD = "meterbridge", "the-old-password"
_LIMIT_S = 240.0

#: Two keys of Lago; the stand-in takes one at a time, and keeps what it has when it starts again with another.
START_LAGO = """
meterbridge lago-sandbox --port 3000 --journal lago.journal --api-key {key} >> .meterbridge/lago.log 2>&1 & LAGO_PID=$!
until curl -fs localhost:3000/health -o .meterbridge/health.txt; do sleep 0.2; done
"""
BEGIN = (
    """
meterbridge topics create
meterbridge db migrate
"""
    + START_LAGO.format(key="the-old-key")
    + """
meterbridge lago setup
METRICS_PORT=9080 meterbridge serve > .meterbridge/serve.log 2>&1 & echo $! > .meterbridge/serve.pid
meterbridge worker > .meterbridge/worker.log 2>&1 & echo $! > .meterbridge/worker.pid
until curl -fs localhost:8080/health/ready && curl -fs localhost:9090/health/ready; do sleep 0.2; done
post() { curl -s --retry 20 --fail-with-body "localhost:8080$1" -H "Authorization: Bearer $LITELLM_MASTER_KEY" -d "$2"; }
until post /api/v1/billing/org/organizations/acme-inc/setup '{"plan_code": "ai_basic"}'; do sleep 1; done
post /customers/mapping '{"litellm_customer_id": "acme", "lago_customer_id": "acme-inc", "lago_organization_id": "main"}'
post /api/v1/provider-keys '{"user_id": "ada", "provider": "openai", "key_name": "mine", "api_key": "sk-example-of-adas-own-key"}'
"""
)
#: What happens beside the page, before the block of a chapter.
BEFORE = {
    "Lago's API key": "kill $LAGO_PID; wait $LAGO_PID; echo the-new-key > new-lago.key"
    + START_LAGO.format(key="the-new-key"),
    "Secrets of Lago's and Stripe's webhooks": "echo a-new-key-of-lagos-webhooks > new-lago-webhook.key",
    "Certificates for Kafka": f"""
unset KAFKA_SASL_USERNAME KAFKA_SASL_PASSWORD KAFKA_SASL_MECHANISM
export KAFKA_BOOTSTRAP_SERVERS=kafka:9094 KAFKA_SECURITY_PROTOCOL={CERTIFICATE}
export KAFKA_SSL_CERTFILE=$PWD/client.crt KAFKA_SSL_KEYFILE=$PWD/client.key
restart_serve
restart_worker""",
}


@dataclass
class Sender:
    """Posts one call after the other, and repeats after a 503 or without an answer."""

    url: str
    token: str
    sent: int = 0
    answers: dict[int, int] = field(default_factory=dict)
    ended: bool = False

    async def run(self) -> None:
        """Runs until it is `ended`: the last call is answered then; otherwise it would be billed and not counted here."""
        async with http_client(trust_env=False) as http:
            for number in count():
                await self._post(http, number)
                if self.ended:
                    return
                await asyncio.sleep(0.1)

    async def _post(self, http: httpx.AsyncClient, number: int) -> None:
        call = {"id": f"call-{number}", "customer_id": "acme", "model": "gpt-4o", "cost_usd": "0.01"}
        while True:
            with suppress(httpx.TransportError):
                answer = await http.post(self.url, json=call, headers={"Authorization": f"Bearer {self.token}"})
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:  # "send it again": the ingress is starting
                    self.answers[answer.status_code] = self.answers.get(answer.status_code, 0) + 1
                    self.sent += 1
                    return
            await asyncio.sleep(0.05)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[SecuredKafka]:
    keys = tmp_path / "keys"
    keys.mkdir()
    broker = SecuredKafka(keys, accounts=(ADMIN, ACCOUNT), masters=(ADMIN, ACCOUNT))
    yield broker
    broker.kafka.stop()


@pytest.fixture
async def database() -> AsyncIterator[tuple[str, int, str]]:
    """A server that requires a password: the administrator's URL, the port, the database."""
    server = LocalPostgres()
    try:
        rules = server.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all {ACCOUNT} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        async with fresh_database(server.url) as url:
            name = url.rpartition("/")[2]
            await rows(url, f"CREATE ROLE {ACCOUNT} LOGIN PASSWORD '{OLD_PASSWORD}'")
            await rows(url, f"ALTER DATABASE {name} OWNER TO {ACCOUNT}")
            await rows(url, "SELECT pg_reload_conf()")
            yield url, server.port, name
    finally:
        server.stop()


@asynccontextmanager
async def sending(sender: Sender) -> AsyncIterator[None]:
    task = asyncio.create_task(sender.run())
    try:
        yield
    finally:
        sender.ended = True
        await asyncio.wait_for(task, 60 * PATIENCE)


@pytest.mark.long
async def test_every_secret_is_replaced_while_calls_arrive_and_no_call_is_lost_or_refused(
    secured: SecuredKafka, database: tuple[str, int, str], tmp_path: Path
) -> None:
    admin_url, postgres_port, name = database
    folder = _what_a_reader_has(tmp_path, secured)
    ports = {number: free_port() for number in (3000, 8080, 9080)}
    ports |= dict(zip(range(9090, 9094), free_ports_in_a_row(4), strict=True))
    written = {
        r"kafka:9093": f"127.0.0.1:{secured.ports[SCRAM]}",
        r"kafka:9094": f"127.0.0.1:{secured.ports[CERTIFICATE]}",
        r"--retry 60\b": "--retry 600",  # a busy machine starts a process in more than a minute
    } | {rf"(?<!\d){number}(?!\d)": str(port) for number, port in ports.items()}
    environ = {
        **secured.environ(ACCOUNT),
        "PATH": f"{folder}/programs:{Path(sys.executable).parent}:{os.environ['PATH']}",
        **{key: os.environ[key] for key in ("HOME", "JAVA_HOME") if key in os.environ},
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(postgres_port),
        "POSTGRES_DB": name,
        "POSTGRES_USER": ACCOUNT,
        "POSTGRES_PASSWORD": OLD_PASSWORD,
        "ADMIN_URL": admin_url,
        "LAGO_API_URL": f"http://127.0.0.1:{ports[3000]}",
        "LAGO_API_KEY": "the-old-key",
        "WEBHOOK_TOKEN": "the-old-token-of-the-senders",
        "LITELLM_MASTER_KEY": "sk-the-old-master-key",
        "LAGO_WEBHOOK_SECRET": "the-old-key-of-lagos-webhooks",
        "PROVIDER_KEYS_SECRET": "A" * 43 + "=",
        "PORT": str(ports[8080]),
        "METRICS_PORT": str(ports[9090]),
        "KAFKA_PARTITIONS": "2",
        "WORKER_PROCESSES": "one",  # it is started six times
        "WINDOW_SECONDS": "5",
        "GRACE_SECONDS": "1",
        "COLUMNS": "250",
        "no_proxy": "*",
    }
    shell = PageShell(folder, environ, written, "no-prefix", forked=True)
    sender = Sender(f"http://127.0.0.1:{ports[8080]}/webhooks/litellm", environ["WEBHOOK_TOKEN"])
    await shell.start()
    try:
        await shell.run(_given(BEGIN), _LIMIT_S)
        async with sending(sender):
            await _typed(shell, folder, sender)
        assert sender.answers == {202: sender.sent} and sender.sent > 50
        await soon(lambda: _billed_cents(environ["LAGO_API_URL"]) >= sender.sent, limit_s=60)  # a cent each
        assert _billed_cents(environ["LAGO_API_URL"]) == sender.sent
    finally:
        await shell.stop()


async def _typed(shell: PageShell, folder: Path, sender: Sender) -> None:
    """Type the page, and do what it asks for between its blocks."""
    before = dict(BEFORE)
    for block in blocks(PAGE):
        chapter = _chapter_of(block)
        if chapter in before:
            await shell.run(_given(before.pop(chapter)), _LIMIT_S)
        await shell.run(block, _LIMIT_S)
        if "NEW_TOKEN=" in block.text:
            await shell.run(_given('echo "$NEW_TOKEN" > new-token'))
            await _answered(sender)  # calls with the old token come to an ingress that has both
            sender.token = (folder / "new-token").read_text().strip()
            await _answered(sender)
    assert not before


async def _answered(sender: Sender) -> None:
    """Wait until some more calls are answered."""
    wanted = sender.sent + 5
    await soon(lambda: sender.sent >= wanted, limit_s=60)


def _chapter_of(block: Block) -> str:
    lines = PAGE.read_text(encoding="utf-8").splitlines()[: int(block.place.rpartition(":")[2])]
    return next(line for line in reversed(lines) if line.startswith("## ")).removeprefix("## ")


def _given(text: str) -> Block:
    return Block("before the page", text + "\n", "", "", "")


def _billed_cents(lago: str) -> Decimal:
    """The sum of all events in the stand-in."""
    cents, page = Decimal(0), 1
    with httpx.Client(headers={"Authorization": "Bearer the-new-key"}, trust_env=False) as http:
        while page:
            answer = http.get(f"{lago}/api/v1/events", params={"per_page": 100, "page": page}).json()
            cents += sum(Decimal(event["precise_total_amount_cents"]) for event in answer["events"])
            page = answer["meta"]["next_page"]
    return cents


def _what_a_reader_has(folder: Path, secured: SecuredKafka) -> Path:
    """Kafka's program, the administrator's account, the authority and a certificate."""
    (folder / ".meterbridge").mkdir()
    (folder / "programs").mkdir()
    program = folder / "programs" / "kafka-configs.sh"
    command = shlex.join(java_command("kafka.admin.ConfigCommand", options=short_lived()))
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)
    (folder / "ca.pem").write_bytes(secured.authority.cafile.read_bytes())
    (folder / "ca.key").write_bytes(secured.authority.key())
    shown = secured.authority.client(ACCOUNT)
    (folder / "client.crt").write_bytes(shown.certificate.read_bytes())
    (folder / "client.key").write_bytes(shown.key.read_bytes())
    (folder / "admin.properties").write_text(secured.admin_properties())
    return folder
