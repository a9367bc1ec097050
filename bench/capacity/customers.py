"""What mapped customers cost: meter, api and sink start beside full topics of customers and orgs."""

import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from bench.capacity.broker import WeighedKafka, environment, fill, started, until
from bench.capacity.process_cost import cost_of
from bench.ground import settings_of
from connectors.config.connections import kafka_connection, topic_layout
from connectors.kafka.admin import create_topics
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.topics import TopicNames
from tests.support.ports import free_port

PARTITIONS = 4
CUSTOMERS_OF_AN_ORG = 5
_UP_S, _IDLE_S = 240.0, 20.0
_MOMENT_US = 1_750_000_000_000_000
#: A process's words, and what it logs when it is ready for work.
_PROCESSES = {
    "meter": (("worker", "--only", "meter"), '"event": "partitions_opened"'),
    "sink": (("worker", "--only", "sink"), '"event": "partitions_opened"'),
    "api": (("serve", "--only", "api"), '"event": "ready"'),
}


def mapped(topics: TopicNames, customers: int) -> Iterator[tuple[str, int, bytes, bytes]]:
    """The records of customers that were mapped once, and of their orgs with a monthly subscription."""
    encode = msgspec.json.encode
    for number in range(customers):
        who, org = str(uuid.UUID(int=number + (0xC0FFEE << 96))), f"org-{number // CUSTOMERS_OF_AN_ORG:07d}"
        version = MappingVersion(_MOMENT_US, org, "tenant-1", updated_at=_MOMENT_US)
        yield topics.customers, -1, who.encode(), encode(CustomerRecord(who, (version,), _MOMENT_US, _MOMENT_US))
        if number % CUSTOMERS_OF_AN_ORG == 0:
            period = Period(f"sub-{org}", _MOMENT_US, plan_code="ai_basic", interval="monthly", charged=("llm_tokens",))
            record = OrgRecord(
                org, f"Organisation {number}", "ai_basic", "USD", periods=(period,), updated_at=_MOMENT_US
            )
            yield topics.orgs, -1, org.encode(), encode(record)


def measured(broker: WeighedKafka, customers: int) -> list[dict[str, Any]]:
    """One row a process."""
    prefix = f"capacity-{uuid.uuid4().hex[:8]}."
    settings, topics = settings_of(broker.bootstrap, prefix), TopicNames.with_prefix(prefix)
    create_topics(kafka_connection(settings), topic_layout(settings))
    fill(broker.bootstrap, mapped(topics, customers))
    size = broker.bytes_of(topics.customers) + broker.bytes_of(topics.orgs)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meterbridge-capacity-")))
        lago = free_port()
        sandbox = [sys.executable, "-m", "connectors", "lago-sandbox", "--port", str(lago)]
        other = {
            "LAGO_API_URL": f"http://127.0.0.1:{lago}",
            "LAGO_API_KEY": "lago-key",
            "LITELLM_MASTER_KEY": "sk-master",
        }
        environ = environment(
            broker.bootstrap, prefix, PARTITIONS, **other, METRICS_PORT="0", API_PORT=str(free_port())
        )
        started(stack, sandbox, environ, folder / "sandbox.log")
        rows = []
        for name, (words, said) in _PROCESSES.items():
            log = folder / f"{name}.log"
            begun = time.monotonic()
            process = started(stack, [sys.executable, "-m", "connectors", *words], environ, log)
            until(lambda log=log, said=said: said in log.read_text(), _UP_S, f"{name} with {customers} customers")
            wall, at_start = time.monotonic() - begun, cost_of(process.pid)
            time.sleep(_IDLE_S)
            later = cost_of(process.pid)
            rows.append(
                {
                    "process": name,
                    "customers": customers,
                    "start_wall_s": round(wall, 2),
                    "start_cpu_s": round(at_start.cpu_s, 2),
                    "idle_cpu_percent": round(100 * (later.cpu_s - at_start.cpu_s) / _IDLE_S, 2),
                    "pss_mb": round(later.pss / 1e6, 1),
                    "peak_mb": round(later.peak / 1e6, 1),
                    "topics_mb": round(size / 1e6, 2),
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            process.terminate()
            process.wait()
        return rows
