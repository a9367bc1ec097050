"""A client without any credential attacks in every way: other senders are not affected, and the process stays alive."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from connectors.config.settings import Settings
from connectors.kafka.admin import create_topics
from schemas.topics import RAW
from tests.support.eventually import PATIENCE
from tests.support.ingress import USAGE, read_topic
from tests.support.ingress_process import IngressProcess
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.stranger import KINDS
from tests.support.topic_prefix import own_topic_prefix
from tests.support.values import topics_of

pytestmark = [pytest.mark.alone, pytest.mark.kafka]

#: Of one attack: what CI has time for, longer than a silent connection may be; `SECONDS=60` measures on a machine that does nothing else.
SECONDS, IS_MEASURED = float(os.environ.get("SECONDS") or 2.5), bool(os.environ.get("SECONDS"))
TIMEOUT_S = 5 if IS_MEASURED else 2
QUIET_S = 1.5
TOKEN = {"Authorization": "Bearer honest-honest-honest"}
#: How long 99 of 100 posts and each look at `/health/live` may take, seconds. Without a measurement other programs may use
#: the machine: a post may take a second, or five times the longest wait without an attack, or of this process itself. A blocked
#: process needs more.
P99_S, ALIVE_S = 0.250 if IS_MEASURED else 1.0, 1.0
TIMES_ALONE = 0 if IS_MEASURED else 5
#: Without an attack a process of this kind needs about 120 MiB.
PEAK_MIB = 600


@pytest.fixture(scope="module")
def serve(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngressProcess]:
    """Yield one server for all kinds of attack: each starts with a process that has had the kinds before it."""
    with own_topic_prefix(kafka.bootstrap) as prefix:
        yield from serving(kafka, prefix, tmp_path_factory.mktemp("strangers"))


def serving(kafka: Kafka, topic_prefix: str, folder: Path) -> Iterator[IngressProcess]:
    create_topics(
        *topics_of(Settings(kafka_bootstrap_servers=kafka.bootstrap, kafka_partitions=3, topic_prefix=topic_prefix))
    )
    settings = {
        "API_PORT": str(free_port()),
        "ALLOW_UNAUTHENTICATED": "",
        "WEBHOOK_TOKEN": "honest-honest-honest",
        "WEBHOOK_SECRET": "a-secret-that-no-stranger-has",
        "LITELLM_MASTER_KEY": "sk-master-of-this-deployment",
        "WEBHOOK_TIMEOUT": str(TIMEOUT_S),
    }
    process = IngressProcess(kafka.bootstrap, topic_prefix, folder, settings, only="webhooks,api", descriptors=256)
    process.start()
    yield process
    process.kill()


@dataclass
class Honest:
    """Other senders, and what they saw: seconds of each post, of each look at `/health/live`, and failures."""

    serve: IngressProcess
    numbers: Iterator[int] = field(default_factory=count)
    waits: list[float] = field(default_factory=list)
    alive: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """By how many seconds this process, which nobody attacks, woke up too late: a pause of the machine."""

    async def send(self, seconds: float) -> None:
        """Post on one connection and on new ones, and look at both ports."""
        until = time.monotonic() + seconds
        async with aiohttp.ClientSession() as kept:
            await asyncio.gather(
                self._steadily(lambda: self._post(kept), 0.05, self.waits, until),
                self._steadily(self._post_anew, 0.1, self.waits, until),
                self._steadily(_lateness, 0.05, self.late, until),
                self._steadily(lambda: self._look(self.serve.port), 0.2, self.alive, until),
                self._steadily(lambda: self._look(int(self.serve.settings["API_PORT"])), 0.2, self.alive, until),
            )

    async def _post(self, session: aiohttp.ClientSession) -> float:
        call = {"id": f"call-{next(self.numbers)}", "end_user": "c", "model": "m", "spend": 0.01}
        return await timed(session.post(self.serve.url + USAGE, data=json.dumps(call), headers=TOKEN), 202)

    async def _post_anew(self) -> float:
        async with aiohttp.ClientSession() as session:
            return await self._post(session)

    async def _look(self, port: int) -> float:
        async with aiohttp.ClientSession() as session:
            return await timed(session.get(f"http://127.0.0.1:{port}/health/live"), 200)

    async def _steadily(
        self, do: Callable[[], Awaitable[float]], every_s: float, took: list[float], until: float
    ) -> None:
        while time.monotonic() < until:
            begun = time.monotonic()
            try:
                took.append(await asyncio.wait_for(do(), 10 * PATIENCE))
            except (aiohttp.ClientError, AssertionError, TimeoutError, OSError) as error:
                self.failed.append(f"{type(error).__name__} {error}")
            await asyncio.sleep(max(0.0, every_s - (time.monotonic() - begun)))


@dataclass
class Alone:
    """The longest wait, seconds, while nothing attacks; measured once, and again if the machine seems to have become busy."""

    serve: IngressProcess
    longest: float = 0.0

    async def measure(self) -> None:
        """Send for a moment; a longer wait than before counts."""
        honest = Honest(self.serve)
        await honest.send(QUIET_S)
        self.longest = max(self.longest, *honest.waits, *honest.alive)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(serve: IngressProcess) -> Alone:
    result = Alone(serve)
    await result.measure()
    return result


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_without_a_credential_delays_no_other_sender(
    serve: IngressProcess, alone: Alone, kind: str, figures: Callable[..., None]
) -> None:
    """In an earlier version 1 MB of gzip cost an ingress 3 s; silent connections blocked it until they closed."""
    ports = serve.port, int(serve.settings["API_PORT"]), serve.metrics_port
    command = [sys.executable, "-m", "tests.support.stranger", kind, *map(str, (*ports, SECONDS))]
    told_before, stored_before = len(serve.log.read_text()), len(stored(serve))
    serve.forget_peak()
    honest = Honest(serve)
    unauthenticated = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert unauthenticated.stdout is not None
    await unauthenticated.stdout.readline()
    await honest.send(SECONDS)
    result, _ = await asyncio.wait_for(unauthenticated.communicate(), 30 * PATIENCE)
    waits, alive = sorted(honest.waits), max(honest.alive)
    p99, lost = waits[len(waits) * 99 // 100], next(honest.numbers) + stored_before - len(stored(serve))
    peak = serve.peak_mib()
    print(result.decode().strip())
    print(
        f"honest senders: alone at most {alone.longest * 1000:.0f} ms; beside him p99 {p99 * 1000:.0f} ms, longest {waits[-1] * 1000:.0f} ms; /health/live longest "
        f"{alive * 1000:.0f} ms; peak {peak} MiB; lost neighbours {lost}; failed {honest.failed[:3]}"
    )
    what = kind.replace(" ", "_")
    measured = {"p99_ms": p99 * 1000, "longest_ms": waits[-1] * 1000, "health_longest_ms": alive * 1000}
    figures(**{f"{what}_{name}": round(value) for name, value in measured.items()})
    figures(**{f"{what}_peak_mib": peak, f"{what}_lost": lost, "attack_s": SECONDS})
    assert not honest.failed
    assert lost == 0
    if not IS_MEASURED and (p99 > P99_S or alive > ALIVE_S):
        await alone.measure()
    excused_s = TIMES_ALONE * max(alone.longest, *honest.late)
    assert p99 < max(P99_S, excused_s)
    assert alive < max(ALIVE_S, excused_s)
    assert peak < PEAK_MIB
    logged = serve.log.read_text()[told_before:]
    assert logged.count("wrong_credentials") <= 20 * (1 + SECONDS // 60), "one an address and minute"
    assert "guess-" not in logged


def stored(serve: IngressProcess) -> list[Any]:
    """Return the stored calls of the other senders."""
    return read_topic(serve.bootstrap, serve.prefix + RAW.name)


async def _lateness() -> float:
    begun = time.monotonic()
    await asyncio.sleep(0.05)
    return time.monotonic() - begun - 0.05


async def timed(asked: aiohttp.client._RequestContextManager, status: int) -> float:
    begun = time.monotonic()
    async with asked as answer:
        await answer.read()
        assert answer.status == status, answer.status
    return time.monotonic() - begun
