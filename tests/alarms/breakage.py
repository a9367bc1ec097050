"""What breaks in a trial: each fault begins, and is mended when its block ends."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import msgspec
from confluent_kafka import TopicPartition

from schemas.ledger import Position
from tests.alarms import damage
from tests.alarms.monitor import Monitor
from tests.alarms.traffic import CALLERS, OTHER, Traffic
from tests.faults.world import KEY, OURS, World
from tests.support.database import rows
from tests.support.kafka import MavenKafka
from tests.support.postgres import LocalPostgres
from tests.unit.telemetry.test_watched_limits import certificate_from_now

_UP_S = 90.0


@dataclass(slots=True)
class Scene:
    """Everything that a fault needs."""

    world: World
    monitor: Monitor
    traffic: Traffic
    kafka: MavenKafka
    postgres: LocalPostgres
    certificate: Path

    async def lago(self, **rule: object) -> None:
        """Let the stand-in for Lago fail; without a rule it is well again."""
        async with httpx.AsyncClient(base_url=self.world.url("sandbox"), trust_env=False) as http:
            if rule:
                (await http.post("/__faults", json={"rules": [rule]})).raise_for_status()
            else:
                (await http.delete("/__faults")).raise_for_status()

    async def stopped(self, name: str) -> None:
        """End a process, and let no one start it."""
        await self.world.processes[name].kill()

    async def started(self, name: str) -> None:
        """Start it again; returns when it is up."""
        self.world.processes[name].start()
        await self.world.processes[name].up(_UP_S)

    async def command(self, *words: str) -> None:
        """Run a command of the product. Raises: RuntimeError: it failed; with what it printed."""
        await command(self.world, *words)


async def command(world: World, *words: str) -> None:
    """Run a command of the product. Raises: RuntimeError: it failed; with what it printed."""
    environ = {**os.environ, **world.environ("topics")}
    done = await asyncio.create_subprocess_exec(
        *OURS, *words, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await done.communicate()
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {printed.decode()[-1000:]}")


Fault = Callable[[Scene], AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def lago_down(scene: Scene) -> AsyncIterator[None]:
    await scene.stopped("sandbox")
    yield
    await scene.started("sandbox")


@contextlib.asynccontextmanager
async def key_expired(scene: Scene) -> AsyncIterator[None]:
    await scene.lago(kind="status", status=401, path="/api/v1/")
    yield
    await scene.lago()


@contextlib.asynccontextmanager
async def events_are_lost(scene: Scene) -> AsyncIterator[None]:
    """Lago answers 200 and stores nothing."""
    await scene.lago(kind="lose")
    yield
    await scene.lago()


@contextlib.asynccontextmanager
async def event_of_the_canary_is_there_twice(scene: Scene) -> AsyncIterator[None]:
    org = "org_meterbridge-canary"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=scene.world.url("sandbox"), headers=headers, trust_env=False) as http:
        [own] = (await http.get("/api/v1/subscriptions", params={"external_customer_id": org})).json()["subscriptions"]
        query = {"external_subscription_id": own["external_id"]}
        newest = (await http.get("/api/v1/events", params=query)).json()["events"][0]
        twin = {name: newest[name] for name in ("external_subscription_id", "code", "properties")}
        twin["timestamp"] = str(datetime.fromisoformat(newest["timestamp"]).timestamp())
        twin |= {"precise_total_amount_cents": newest["precise_total_amount_cents"], "transaction_id": "twin"}
        (await http.post("/api/v1/events", json={"event": twin})).raise_for_status()
    yield


@contextlib.asynccontextmanager
async def canary_gone(scene: Scene) -> AsyncIterator[None]:
    await scene.stopped("canary")
    yield
    await scene.started("canary")


@contextlib.asynccontextmanager
async def held_money_grows(scene: Scene) -> AsyncIterator[None]:
    for _ in range(5):
        await scene.traffic.send(scene.traffic.call("newcomer", cost_usd="5"))
    yield


@contextlib.asynccontextmanager
async def names_are_invented(scene: Scene) -> AsyncIterator[None]:
    calls = [scene.traffic.call(f"attack-{number}", cost_usd="0.0001") for number in range(150)]
    assert await scene.traffic.send(calls) == 202
    yield


@contextlib.asynccontextmanager
async def dead_letters(scene: Scene) -> AsyncIterator[None]:
    body = {"status": 422, "code": "validation_errors", "error_details": {"0": {"timestamp": ["invalid_format"]}}}
    await scene.lago(kind="status", status=422, body=body, count=3)
    yield
    await scene.lago()


@contextlib.asynccontextmanager
async def lago_slow(scene: Scene) -> AsyncIterator[None]:
    await scene.lago(kind="slow", seconds=5)
    yield
    await scene.lago()


@contextlib.asynccontextmanager
async def records_are_half_as_old_as_they_may_be(scene: Scene) -> AsyncIterator[None]:
    """Lago is slow, and the topic keeps events for a minute: Kafka looks for what is old every five minutes."""
    events = scene.world.topics.events
    await scene.lago(kind="slow", seconds=5)
    await asyncio.to_thread(damage.keep, scene.kafka.bootstrap, events, 40_000)
    yield
    await asyncio.to_thread(damage.keep, scene.kafka.bootstrap, events, 30 * 86_400_000)
    await scene.lago()


@contextlib.asynccontextmanager
async def kafka_away(scene: Scene) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.kafka.kill)
    while await scene.monitor.number("max(meterbridge_spool_bytes / (meterbridge_spool_max_bytes > 0))") < 0.6:
        await scene.traffic.send([scene.traffic.call(CALLERS[0], cost_usd="0.0001") for _ in range(200)])
        await asyncio.sleep(0.5)
    yield
    await asyncio.to_thread(scene.kafka.restart)


@contextlib.asynccontextmanager
async def nothing_arrives(scene: Scene) -> AsyncIterator[None]:
    await asyncio.sleep(100)  # there is a day to compare with
    scene.traffic.flows.clear()
    yield
    scene.traffic.flows.set()


@contextlib.asynccontextmanager
async def certificate_ends(scene: Scene) -> AsyncIterator[None]:
    scene.certificate.write_bytes(certificate_from_now(timedelta(days=10)))
    yield
    scene.certificate.write_bytes(certificate_from_now(timedelta(days=400)))


@contextlib.asynccontextmanager
async def postgres_away(scene: Scene) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.postgres.kill)
    yield
    await asyncio.to_thread(scene.postgres.restart)


@contextlib.asynccontextmanager
async def sink_gone(scene: Scene) -> AsyncIterator[None]:
    await scene.stopped("sink-0")
    yield
    await scene.started("sink-0")


@contextlib.asynccontextmanager
async def partition_halted(scene: Scene) -> AsyncIterator[None]:
    """Calls are deleted before they are read."""
    raw = scene.world.topics.raw
    await scene.stopped("meter-0")
    await scene.traffic.send([scene.traffic.call(customer) for customer in CALLERS])
    await asyncio.to_thread(damage.cut, scene.kafka.bootstrap, raw)
    await scene.started("meter-0")
    yield
    await scene.command("ledger", "init", "--from", "earliest", "--comment", "trial", "--yes")
    await scene.stopped("meter-0")
    await scene.started("meter-0")


@contextlib.asynccontextmanager
async def ledger_off(scene: Scene) -> AsyncIterator[None]:
    """A call is counted once too often in what a ledger has written down."""
    topic = scene.world.topics.changelog
    await scene.stopped("meter-0")
    place, value = await asyncio.to_thread(damage.position, scene.kafka.bootstrap, topic)
    position = msgspec.msgpack.decode(value, type=Position)
    position.counters.folded.calls += 1
    await asyncio.to_thread(damage.put, scene.kafka.bootstrap, place, msgspec.msgpack.encode(position))
    await scene.started("meter-0")
    yield
    await scene.stopped("meter-0")
    await asyncio.to_thread(damage.put, scene.kafka.bootstrap, place, value)
    await scene.started("meter-0")


@contextlib.asynccontextmanager
async def wrong_token(scene: Scene) -> AsyncIterator[None]:
    for _ in range(20):
        await scene.traffic.send({}, headers={"Authorization": "Bearer wrong"})
        await asyncio.sleep(0.5)
    yield


@contextlib.asynccontextmanager
async def no_json(scene: Scene) -> AsyncIterator[None]:
    for _ in range(5):
        await scene.traffic.http.post("/webhooks/litellm", content=b"{")
        await asyncio.sleep(0.5)
    yield


@contextlib.asynccontextmanager
async def bad_cost(scene: Scene) -> AsyncIterator[None]:
    await scene.traffic.send([scene.traffic.call(CALLERS[0], cost_usd="much")] * 2)
    yield


@contextlib.asynccontextmanager
async def no_price(scene: Scene) -> AsyncIterator[None]:
    await scene.traffic.send([scene.traffic.flat(OTHER) for _ in range(30)], "/webhook/litellm/usage")
    yield


@contextlib.asynccontextmanager
async def too_dear(scene: Scene) -> AsyncIterator[None]:
    await scene.traffic.send(scene.traffic.flat(OTHER, spend=99_999), "/webhook/litellm/usage")
    yield


@contextlib.asynccontextmanager
async def two_callbacks(scene: Scene) -> AsyncIterator[None]:
    await scene.traffic.send(scene.traffic.flat(CALLERS[1], spend=0.001), "/webhook/litellm/usage")
    yield


@contextlib.asynccontextmanager
async def certificate_has_nearly_ended(scene: Scene) -> AsyncIterator[None]:
    scene.certificate.write_bytes(certificate_from_now(timedelta(days=1)))
    yield
    scene.certificate.write_bytes(certificate_from_now(timedelta(days=400)))


@contextlib.asynccontextmanager
async def stranger_writes_a_rate_card(scene: Scene) -> AsyncIterator[None]:
    """Each meter that starts later reads it again."""
    place = TopicPartition(scene.world.topics.rates, 0)
    await asyncio.to_thread(damage.put, scene.kafka.bootstrap, place, b"no rate card", b"somebody")
    yield


@contextlib.asynccontextmanager
async def stranger_writes_a_call(scene: Scene) -> AsyncIterator[None]:
    place = TopicPartition(scene.world.topics.enriched, 0)
    await asyncio.to_thread(damage.put, scene.kafka.bootstrap, place, b"no call", b"somebody")
    yield


@contextlib.asynccontextmanager
async def type_is_unknown(scene: Scene) -> AsyncIterator[None]:
    call = scene.traffic.flat(OTHER, spend=0.001, call_type="atelepathy")
    await scene.traffic.send(call, "/webhook/litellm/usage")
    yield


@contextlib.asynccontextmanager
async def one_request_has_two_ids(scene: Scene) -> AsyncIterator[None]:
    now = time.time()
    times = {"startTime": now - 2, "endTime": now - 1, "litellm_call_id": f"one-{now}", "status": "success"}
    calls = [scene.traffic.flat(OTHER, spend=0.001, **times) for _ in range(2)]
    await scene.traffic.send(calls, "/webhook/litellm/usage")
    yield


@contextlib.asynccontextmanager
async def somebody_writes_a_balance(scene: Scene) -> AsyncIterator[None]:
    database = scene.world.common["DATABASE_URL"]
    words = ["credits", "grant", "user:ada", "10", "--comment", "trial", "--key", "trial"]
    await scene.command(*words)
    await rows(database, "UPDATE user_credits SET balance = balance + 1 WHERE user_id = 'ada'")
    yield
    await rows(database, "UPDATE user_credits SET balance = balance - 1 WHERE user_id = 'ada'")


@contextlib.asynccontextmanager
async def audit_line_is_forged(scene: Scene) -> AsyncIterator[None]:
    """A line is written again, by another name. It stays, so nothing after this is quiet."""
    topic = scene.world.topics.audit
    line = await asyncio.to_thread(damage.first, scene.kafka.bootstrap, topic)
    forged = json.dumps({**json.loads(line), "actor": "eve"}).encode()
    await asyncio.to_thread(damage.put, scene.kafka.bootstrap, TopicPartition(topic, 0), forged, b"key")
    await scene.stopped("api")
    await scene.started("api")
    yield


#: The fault of each alarm. Those that stop a ledger, and the one that stays, come last.
FAULTS: dict[str, Fault] = {
    "MeterbridgeLagoDown": lago_down,
    "MeterbridgeLagoKeyRefused": key_expired,
    "MeterbridgeCanaryNotBilled": events_are_lost,
    "MeterbridgeCanaryWrong": event_of_the_canary_is_there_twice,
    "MeterbridgeCanaryGone": canary_gone,
    "MeterbridgeHeldMoneyGrows": held_money_grows,
    "MeterbridgeDeadLetters": dead_letters,
    "MeterbridgeDeliveryBehind": lago_slow,
    "MeterbridgeRecordsHalfwayToDeletion": records_are_half_as_old_as_they_may_be,
    "MeterbridgeCertificateEndsSoon": certificate_ends,
    "MeterbridgeProjectorBehind": postgres_away,
    "MeterbridgeNothingArrives": nothing_arrives,
    "MeterbridgeSendersUnauthorized": wrong_token,
    "MeterbridgeBodiesRefused": no_json,
    "MeterbridgeUsageRejected": bad_cost,
    "MeterbridgeUsageWithoutPrice": no_price,
    "MeterbridgeImplausibleCost": too_dear,
    "MeterbridgeTwoCallbacks": two_callbacks,
    "MeterbridgeHeldCustomersJump": names_are_invented,
    "MeterbridgeRoleMissing": sink_gone,
    "MeterbridgeCertificateEnds": certificate_has_nearly_ended,
    "MeterbridgeRowsLeftOut": stranger_writes_a_call,
    "MeterbridgeUnknownCallType": type_is_unknown,
    "MeterbridgeBilledTwice": one_request_has_two_ids,
    "MeterbridgeCreditsImbalance": somebody_writes_a_balance,
    "MeterbridgeSpoolFillsUp": kafka_away,
    "MeterbridgePartitionHalted": partition_halted,
    "MeterbridgeLedgerImbalance": ledger_off,
    "MeterbridgeUnreadableRecords": stranger_writes_a_rate_card,
    "MeterbridgeAuditLogChanged": audit_line_is_forged,
}
