"""One trial: jobs are polled through a real LiteLLM proxy, in two halves with a restart, or a week, between them.

What LiteLLM posts and what it writes into its database are both billed from: by the ingress, and by `meterbridge
backfill` after each half. Besides the job of each kind that is polled through both halves there is a batch whose polls
never arrive (the proxy is killed before it can post them; the database has its row), to be polled again a week later,
and one that is finished only after the week.
"""

import asyncio
import os
import shutil
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx
from aiohttp import web

from connectors.postgres.migrate import migrate
from tests.faults.world import KEY as LAGO_KEY
from tests.faults.world import MASTER_KEY, ORGS, TOKEN, World, running_world
from tests.proxy.clock import Clock
from tests.proxy.provider import UNFINISHED_POLLS, Provider
from tests.proxy.proxy import USER, Configuration, Proxy, migrations
from tests.proxy.spend import SpendLogs
from tests.support.database import fresh_database
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka, start_kafka
from tests.support.kafka.maven import MavenKafka
from tests.support.ports import free_port
from tests.support.postgres import LocalPostgres, Postgres, start_postgres

#: Polls of each job, half of them before everything is restarted.
BATCH_POLLS, RESPONSE_POLLS, VIDEO_POLLS = 50, 20, 10
WEEK_DAYS = 7
#: In cents, at LiteLLM's own prices: a batch of two completions of gpt-4o-mini at half price, a response of the same
#: size, four seconds of sora-2.
BATCH, RESPONSE, VIDEO = Decimal("0.045"), Decimal("0.045"), Decimal(40)
#: After the first half: a batch, a response, a video, and the batch that only the database knows. Then the late one too.
FIRST_HALF = BATCH + RESPONSE + VIDEO + BATCH
WHOLE = FIRST_HALF + BATCH
#: Retention as it is set, looked at often.
_BROKER = {"log.retention.check.interval.ms": "5000", "log.initial.task.delay.ms": "1000"}
#: Windows of ten seconds, their grace, and a slow machine.
_BILLED_LIMIT_S = 120.0
_QUIET_S = 20.0
_COMMAND_LIMIT_S = 240.0


@dataclass(slots=True)
class Trial:
    """The state of one trial; `wrong` lists the errors."""

    configuration: Configuration
    world: World
    proxy: Proxy
    spend: SpendLogs
    postgres: Postgres
    clock: Clock | None
    wrong: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Run both halves of the trial, each with its backfill and its reconciliation."""
        await self._map()
        await self.proxy.start()
        try:
            jobs = await self._make()
            await self._first_half(jobs)
            await (self._restart() if self.clock is None else self._week(self.clock))
            await self.proxy.start()
            await self._second_half(jobs)
        finally:
            await self.proxy.kill()
            await self.proxy.client.aclose()

    async def _make(self) -> dict[str, str]:
        """The path to poll for each job, by its name."""
        batch = {"input_file_id": "file-in", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        jobs = {
            name: "/v1/batches/" + await self.proxy.make("/v1/batches", **batch) for name in ("batch", "lost", "late")
        }
        response = await self.proxy.make("/v1/responses", model="gpt-4o-mini", input="hello", background=True)
        jobs["response"] = "/v1/responses/" + response
        jobs["video"] = "/v1/videos/" + await self.proxy.make_video()
        return jobs

    async def _first_half(self, jobs: dict[str, str]) -> None:
        await self._poll_half(jobs)
        if self.configuration.polled_by_litellm:
            await self.proxy.look(jobs["response"].rpartition("/")[2], "gpt-4o-mini")
            await self._until_written(jobs["response"], "_background_cost")
        await self.proxy.poll(jobs["late"], UNFINISHED_POLLS)
        await asyncio.sleep(3)  # one flush of LiteLLM's, and more
        ingress = self.world.processes["ingress"]
        await ingress.kill()
        await self.proxy.poll(jobs["lost"], UNFINISHED_POLLS + 1)
        if self.configuration.database:
            await self._until_written(jobs["batch"], "_batch_cost")
            await self._until_written(jobs["lost"], "_batch_cost")
        await self.proxy.kill()
        await ingress.up()
        await self._proved(FIRST_HALF if self.configuration.database else FIRST_HALF - BATCH)

    async def _second_half(self, jobs: dict[str, str]) -> None:
        await self._poll_half(jobs)
        await self.proxy.poll(jobs["lost"], UNFINISHED_POLLS + 1)
        await self.proxy.poll(jobs["late"], UNFINISHED_POLLS + 1)
        await self.proxy.stop()
        await self._proved(WHOLE)

    async def _proved(self, owed: Decimal) -> None:
        """Calls in LiteLLM's database and posted calls are billed once together, and none is missing."""
        span = ["--from", f"{WEEK_DAYS + 1}d", "--to", "0s"]
        if self.configuration.database:
            await self._command("backfill", "--source", "litellm-db", "--comment", "trial", *span)
        await self._billed(owed)
        await self._command("reconcile", *(["--litellm", *span] if self.configuration.database else []))

    async def _poll_half(self, jobs: dict[str, str]) -> None:
        await self.proxy.poll(jobs["batch"], BATCH_POLLS // 2)
        await self.proxy.poll(jobs["response"], RESPONSE_POLLS // 2)
        await self.proxy.poll(jobs["video"], VIDEO_POLLS // 2)

    async def _until_written(self, job: str, ending: str) -> None:
        """Wait until LiteLLM's database has the row with the job's cost, whose id is the job's with this suffix.

        Raises:
            TimeoutError: it has none after a minute.
        """
        wanted = job.rpartition("/")[2] + ending
        async with asyncio.timeout(60 * PATIENCE):
            while wanted not in {row[0] for row in await self.spend.rows()}:
                await asyncio.sleep(0.2)

    async def _restart(self) -> None:
        """Every process of the product is killed and restarted."""
        names = [name for name, process in self.world.processes.items() if process.wanted and name != "sandbox"]
        await self._kill(names)
        await self._up(names)

    async def _week(self, clock: Clock) -> None:
        """Everything is stopped for a week: the product, Lago, Kafka and Postgres."""
        names = [name for name, process in self.world.processes.items() if process.wanted]
        await self._kill(names)
        await self.spend.away()
        self.world.broker.kill()
        self.postgres.kill()
        clock.forward(WEEK_DAYS)
        await asyncio.to_thread(self.postgres.restart)
        await asyncio.to_thread(self.world.broker.restart)
        await self._up(["sandbox"])
        await self._up([name for name in names if name != "sandbox"])

    async def _kill(self, names: list[str]) -> None:
        await asyncio.gather(*(self.world.processes[name].kill() for name in names))

    async def _up(self, names: list[str]) -> None:
        await asyncio.gather(*(self.world.processes[name].up(120) for name in names))

    async def _map(self) -> None:
        body = {"litellm_customer_id": USER, "lago_customer_id": ORGS[0], "lago_organization_id": "tenant-1"}
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {MASTER_KEY}"}, trust_env=False) as http:
            (await http.post(self.world.url("api") + "/customers/mapping", json=body)).raise_for_status()

    async def _command(self, *arguments: str) -> None:
        """Run a command of the product; it must exit with 0."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connectors", *arguments),
            env=self.world.environ("api"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), _COMMAND_LIMIT_S)
        text = said.decode(errors="replace").strip()
        print(f"  {arguments[0]}: {text}", flush=True)
        if process.returncode:
            self.wrong.append(f"meterbridge {arguments[0]} ended with {process.returncode}")

    async def _billed(self, owed: Decimal) -> None:
        """Wait until the owed amount is billed and no more arrives."""
        billed, changed = Decimal(0), time.monotonic()
        deadline = time.monotonic() + _BILLED_LIMIT_S
        while time.monotonic() < deadline and not (billed == owed and time.monotonic() - changed > _QUIET_S):
            await asyncio.sleep(1)
            now = await self._billed_cents()
            if now != billed:
                billed, changed = now, time.monotonic()
        print(f"  billed: {billed} cents", flush=True)
        if billed != owed:
            self.wrong.append(f"{owed} cents are owed, {billed} were billed")

    async def _billed_cents(self) -> Decimal:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {LAGO_KEY}"}, trust_env=False) as http:
            stats = (await http.get(self.world.url("sandbox") + "/__stats")).json()
        return Decimal(stats["subscriptions"].get("sub-" + ORGS[0], {}).get("billed_cents", "0"))


async def run_trial(folder: Path, clock: Clock | None, configuration: Configuration) -> list[str]:
    """One configuration of the proxy, from an empty state; returns the errors. `clock`: None = no week between the
    halves.
    """
    async with AsyncExitStack() as stack:
        postgres: Postgres = start_postgres(os.environ) if clock is None else LocalPostgres(clock.environ)
        stack.callback(postgres.stop)
        broker: Kafka = start_kafka(os.environ, _BROKER) if clock is None else MavenKafka(_BROKER, None, clock.environ)
        stack.callback(_end, broker, folder)
        ours = await stack.enter_async_context(fresh_database(postgres.url))
        theirs = await stack.enter_async_context(fresh_database(postgres.url))
        await migrate(ours)
        spend = await SpendLogs.create(theirs, migrations())
        stack.push_async_callback(spend.close)
        provider = await _serving(stack, spend)
        common = {"DATABASE_URL": ours, "LITELLM_DATABASE_URL": theirs, **(clock.environ if clock else {})}
        world = await stack.enter_async_context(running_world(os.environ, folder, broker=broker, common=common))
        endpoint = world.url("ingress") + "/webhook/litellm/usage"
        config = configuration.yaml(provider + "/v1", endpoint, TOKEN)
        environ = {"OPENAI_API_BASE": provider + "/v1", "TRIAL_SPEND_URL": provider + "/spend"}
        environ |= {"TRIAL_FREE_READS": "1"} if configuration.free_reads else {}
        proxy = Proxy(folder, free_port(), config, environ | dict(clock.environ if clock else {}))
        trial = Trial(configuration, world, proxy, spend, postgres, clock)
        await trial.run()
        return trial.wrong


def _end(broker: Kafka, folder: Path) -> None:
    """Stop it, and keep its log with the others."""
    if isinstance(broker, MavenKafka):
        shutil.copy(broker.log, folder)
    broker.stop()


async def _serving(stack: AsyncExitStack, spend: SpendLogs) -> str:
    """The provider, and the address where the proxy posts its rows, in this process, whose clock is always right; their
    URL.
    """
    app = Provider().app()
    app.add_routes([spend.route()])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return f"http://127.0.0.1:{port}"
