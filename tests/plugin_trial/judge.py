"""Judges the results: the product's ingress with a store that is sometimes unavailable; and the meter's reading of the
records.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from connectors.ingest.auth import WebhookAuth
from connectors.kafka.producer import Record
from schemas.errors import Rejected, Unavailable
from schemas.rounding import quantum
from schemas.wire import RawRecord
from streams.core.metering.decisions import BILLED
from streams.core.metering.normalise import normalise
from tests.support.ingress import serving, store_in

SECRET = "a-secret-of-the-trial"
TOPICS = ("raw", "rejected")


@dataclass
class Notes:
    """A store in memory. `away` is the probability that a post is not stored."""

    away: float = 0.1
    records: list[Record] = field(default_factory=list)

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        if random.random() < self.away:
            await asyncio.sleep(0.05)
            raise Unavailable("kafka_unavailable", "away, as the trial wants it")
        self.records += records
        return {}


@dataclass
class Verdict:
    """The billed cost of each identity by call id; and what should not be billed."""

    costs: dict[str, list[Decimal]]
    copies: int
    rejected: int

    def problems(self, answered: dict[str, str]) -> list[str]:
        """A line for each answered call that is not billed once."""
        found = []
        for call_id, kind in answered.items():
            costs = [cost for cost in self.costs.get(call_id, []) if cost]
            if len(costs) != 1:
                found.append(f"{kind} {call_id} is billed {len(costs)} times")
        return found


def judge(notes: Notes) -> Verdict:
    """Normalise each record and recognise copies by their identity, like the meter."""
    seen: Counter[bytes] = Counter()
    costs: dict[str, list[Decimal]] = defaultdict(list)
    rejected = 0
    for topic, key, value, _ in notes.records:
        if not topic.endswith("raw"):
            rejected += 1
            continue
        record = msgspec.json.decode(value, type=RawRecord)
        usage = normalise(record, key or "", quantum())
        seen[usage.identity] += 1
        if seen[usage.identity] == 1:
            costs[str(record.call.litellm_call_id)].append(usage.cost)
    return Verdict(costs, sum(seen.values()) - len(seen), rejected)


@asynccontextmanager
async def judging(notes: Notes) -> AsyncIterator[str]:
    """An ingress that accepts signed posts; its URL."""
    assert BILLED  # the decisions that are billed exist
    auth = WebhookAuth((SECRET,), (), timestamp_required=True)
    async with serving(store_in(notes), auth=auth) as ingress:
        yield str(ingress.client.make_url("/"))
