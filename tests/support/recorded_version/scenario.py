"""The recorded scenario: every kind of record that a deployment stores, in the middle of its work.

The version's own processes take calls over HTTP and bill them at the sandbox, until each is stopped at a moment at which
the next version has to go on: open and held windows, calls that are not folded, events that are not posted, one that waits
in the retry topic, a dead letter, and calls in the spool that Kafka has not taken.
"""

import asyncio
import gzip
import hmac
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from schemas.topics import CHANGELOG
from tests.faults.calls import CUSTOMERS, Call, Calls, Owed
from tests.faults.evidence import Evidence
from tests.faults.oracle import Found
from tests.faults.recording import CODE
from tests.faults.world import (
    COMMANDS,
    MASTER_KEY,
    OURS,
    PARTITIONS,
    SECRET,
    World,
    mapped_late,
    running_world,
    subscription_of,
)
from tests.support.checkout import Checkout
from tests.support.kafka.maven import MavenKafka
from tests.support.recorded_version.topics import exported, group_offsets, written

PREFIX, DEPLOYMENT = "recorded.", "meterbridge"
POLLS = Path(__file__).parents[2] / "fixtures" / "polls" / "litellm_1.110.2__plain_ids.json"
#: What the polled jobs cost, in cents, and who pays for them and for customers that are mapped when the recording is read.
#: The jobs of `poll-user` are billed once, however often they are read. The two calls of `c1`, 0.09 together, are no jobs:
#: with another time they are other calls, and the scenario sends them twice.
POLLERS, ORG = {"poll-user": Decimal("40.09"), "c1": Decimal("0.18")}, "org-00"
#: Short enough to become a dead letter here; what waits when the recording ends waits as long.
COMMON = {"WINDOW_SECONDS": "60", "RETRY_DELAY": "3", "MAX_RETRIES": "1"}
_ROLES = ("sandbox", "ingress", "api", "meter-0", "sink-0", "retry-0")
_LIMIT_S = 120.0
_HOUR_S = 3600.0


async def recorded(checkout: Checkout, folder: Path, logs: Path) -> dict[str, Any]:
    """Record the scenario; topics and spool are written into `folder`.

    Returns:
        What the reader has to know: when, where, what is owed and what Lago has.
    """
    broker = MavenKafka()
    try:
        async with running_world(
            os.environ,
            logs,
            broker=broker,
            prefix=PREFIX,
            common=COMMON,
            ingress={"SPOOL_PATH": str(logs / "spool.db")},
            commands={name: COMMANDS[name] for name in _ROLES},
            program=lambda name: OURS if name == "sandbox" else checkout.program,
        ) as world:
            installation = Installation(world, checkout)
            lago = await installation.live()
            await asyncio.to_thread(broker.restart)
            records = list(await asyncio.to_thread(lambda: list(exported(broker.bootstrap, PREFIX))))
            offsets = await asyncio.to_thread(group_offsets, broker.bootstrap, PREFIX, f"{PREFIX}{DEPLOYMENT}-")
    finally:
        broker.stop()
    assert not (logs / "spool.db-wal").exists(), "the spool was not closed"
    with gzip.GzipFile(folder / "spool.db.gz", "wb", mtime=0) as out:
        out.write((logs / "spool.db").read_bytes())
    positions = [record.value for record in records if record.topic == CHANGELOG.name and record.key == b"position"]
    return {
        "commit": _commit(checkout),
        "recorded_at_ms": int(time.time() * 1000),
        "records": written(folder / "topics.jsonl.gz", records),
        "by_topic": Counter(record.topic for record in records),
        "partitions": PARTITIONS,
        "prefix": PREFIX,
        "deployment": DEPLOYMENT,
        "topic_id": _topic_id(positions[-1] or b""),
        "offsets": offsets,
        "owed_cents": installation.owed_cents(),
        "lago_cents": {name: its["cents"] for name, its in lago["subscriptions"].items()},
        "spooled": installation.spooled,
        "unmapped": sorted(customer for customer in CUSTOMERS if mapped_late(customer)),
        "org": ORG,
    }


class Installation:
    """The running version, and what is owed for the usage sent to it."""

    def __init__(self, world: World, checkout: Checkout) -> None:
        self.world = world
        self.spooled = 0
        self._checkout = checkout
        self._owed = Owed()
        self._calls = Calls(12)
        self._polled: Counter[str] = Counter()
        self._evidence = Evidence(world.broker.bootstrap, world.topics, world.url("sandbox"))

    async def live(self) -> dict[str, Any]:
        """Run the whole scenario; return all that is recorded, with the sandbox's sums at the end."""
        for customer in POLLERS:
            await self._map(customer)
        await self._poison()
        first = await self._send(110, 200)
        await self._send(40, 2 * _HOUR_S)
        await self._post(first)
        await self._post(['{"nothing": "of a call"}', *(self._once("late-call", "customer-00", 72 * _HOUR_S))])
        await self._post(self._once("gone-call", "wrong-name", 200))
        await self._poll()
        await self._metered("tx-before")
        await self._until(lambda found: found.dead == 1 and _folded(found) and _posted(found, but=1))
        await self._command("held", "write-off", "--customer", "wrong-name", "--comment", "a name of a test")
        await self._poll()
        await self._until(lambda found: _folded(found) and _posted(found, but=1))
        await self._end("retry-0")
        await self._poison()
        await self._send(40, 190)
        await self._until(lambda found: _folded(found) and _posted(found, but=2))
        await self._heal()
        await self._end("sink-0")
        before = len((await self._evidence.gather()).events)
        await self._send(30, 180)
        await self._until(lambda found: _folded(found) and len(found.events) > before)
        while not 2 < time.time() % 60 < 25:
            await asyncio.sleep(0.5)
        await self._send(50, 0)
        await self._until(_folded)
        await self.world.processes["meter-0"].kill()
        await self._send(20, 0)
        await self._post(first[:5])
        await self._metered("tx-after")
        await self._end("api")
        await asyncio.to_thread(self.world.broker.kill)
        self.spooled = len(await self._send(15, 0))
        await self._end("ingress")
        return await self._evidence.stats()

    def owed_cents(self) -> dict[str, str]:
        """Return what each subscription owes, once those who are not mapped are mapped to `ORG`."""
        payers = {
            customer: f"sub-{ORG}" if mapped_late(customer) else subscription_of(customer) for customer in CUSTOMERS
        }
        sums = {name: its.cents for name, its in self._owed.by_subscription(payers).items()}
        sums[f"sub-{ORG}"] += sum(POLLERS.values())
        return {name: f"{cents:f}" for name, cents in sorted(sums.items())}

    async def _send(self, count: int, ago_s: float) -> list[str]:
        calls: list[Call] = [self._calls.make(time.time() - ago_s) for _ in range(count)]
        for call in calls:
            self._owed.note(call)
        texts = [call.text for call in calls]
        await self._post(texts)
        return texts

    def _once(self, name: str, customer: str, ago_s: float) -> list[str]:
        """Return a call that is finally billed to no customer."""
        (call,) = (Calls(name).make(time.time() - ago_s) for _ in range(1))  # type: ignore[arg-type]
        fields = json.loads(call.text) | {
            "id": name,
            "litellm_call_id": name,
            "end_user": customer,
            "status": "success",
        }
        return [json.dumps(fields | {"cache_hit": False, "response_cost": 0.25, "spend": 0.25})]

    async def _poll(self) -> None:
        """Read the jobs of a recorded proxy again."""
        elements = json.loads(POLLS.read_text())
        moved_s = time.time() - 1 - max(element["endTime"] for element in elements)
        names = ("startTime", "endTime", "completionStartTime")
        await self._post([json.dumps(one | {name: one[name] + moved_s for name in names}) for one in elements])

    async def _post(self, texts: list[str]) -> None:
        body = f"[{','.join(texts)}]".encode()
        signed = {"X-Webhook-Signature": "sha256=" + hmac.digest(SECRET.encode(), body, sha256).hex()}
        await _post_until_accepted(self.world.url("ingress") + "/webhook/litellm/usage", body, signed)

    async def _map(self, customer: str) -> None:
        body = {"litellm_customer_id": customer, "lago_customer_id": ORG, "lago_organization_id": "tenant-1"}
        body["external_subscription_id"] = f"sub-{ORG}"
        await self._api("/customers/mapping", body)

    async def _metered(self, transaction_id: str) -> None:
        body = {
            "event_code": CODE,
            "transaction_id": transaction_id,
            "properties": {"tokens": "7"},
            "timestamp": time.time(),
        }
        await self._api(f"/api/v1/billing/org/organizations/{ORG}/usage/record", body)

    async def _api(self, path: str, body: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"}
        await _post_until_accepted(self.world.url("api") + path, json.dumps(body).encode(), headers)

    async def _poison(self) -> None:
        """Refuse the first event of the next batch, and each repeat of it."""
        rule = [{"kind": "poison", "status": 500, "index": 0}]
        await _post_until_accepted(
            self.world.url("sandbox") + "/__faults", json.dumps(rule).encode(), {"Content-Type": "application/json"}
        )

    async def _heal(self) -> None:
        async with aiohttp.ClientSession() as session:
            await session.delete(self.world.url("sandbox") + "/__faults")

    async def _end(self, name: str) -> None:
        death = await self.world.processes[name].terminate()
        assert death is not None, f"{name} had ended"
        assert death.code == 0, f"{death}"

    async def _command(self, *words: str) -> None:
        command, environ = [*self._checkout.program, *words], self.world.environ("command")
        await asyncio.to_thread(subprocess.run, command, env=environ, check=True, capture_output=True)

    async def _until(self, probe: Callable[[Found], bool]) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while not probe(found := await self._evidence.gather()):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{found.dead} dead, {found.rejected} rejected, {Counter(r.status for r in found.receipts)}"
                )
            await asyncio.sleep(0.5)


def _folded(found: Found) -> bool:
    """Return whether every call is counted."""
    return all(found.ledger[number].position.next == end for number, end in found.raw_ends.items())


def _posted(found: Found, but: int) -> bool:
    """Return whether no window with a payer is open and all events except this number are delivered."""
    last = {receipt.transaction_id: receipt.status for receipt in found.receipts}
    open_windows = [one for ledger in found.ledger.values() for one in ledger.windows.values() if not one.held]
    sealed = {sent.event.transaction_id for sent in found.events}
    return not open_windows and sum(last.get(name) != "completed" for name in sealed) == but


async def _post_until_accepted(url: str, body: bytes, headers: dict[str, str]) -> None:
    """POST again until the response is 2xx, as a sender does."""
    deadline, said = time.monotonic() + _LIMIT_S, ""
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            async with session.post(url, data=body, headers=headers) as response:
                if response.status < 300:
                    return
                said = f"{response.status} {(await response.text())[:300]}"
                if response.status < 500:
                    break
            await asyncio.sleep(0.3)
    raise RuntimeError(f"POST {url}: {said}")


def _topic_id(position: bytes) -> str:
    import msgspec

    return str(msgspec.msgpack.decode(position)[2])


def _commit(checkout: Checkout) -> str:
    command = ["git", "-C", str(checkout.folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
