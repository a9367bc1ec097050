"""Reads the Prometheus pages of the running roles and adds up their values."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """The values of all roles at one moment.

    Fields:
        accepted: elements the ingress has accepted.
        decisions: calls by the meter's decision, `duplicate` among them.
        processes: number of processes that have answered so far.
        ledgers: partitions that the meter has opened.
        held_calls, held_usd: at most five seconds old; only shown, so a float is exact enough.
        sealed: events that left the meter; `settled` of them are billed or dead letters.
        posts: requests with events to Lago.
        off_by: imbalance of the meter's ledgers, the sum of calls and dollars.
        halted: number of halted partitions.
    """

    accepted: int = 0
    decisions: Mapping[str, int] = field(default_factory=dict)
    processes: int = 0
    ledgers: int = 0
    open_windows: int = 0
    held_windows: int = 0
    held_calls: int = 0
    held_usd: float = 0.0
    sealed: int = 0
    settled: int = 0
    posts: int = 0
    off_by: float = 0.0
    halted: int = 0

    @property
    def at_rest(self) -> bool:
        """Whether every accepted call is decided, sealed and settled, and none is open or held."""
        decided = sum(self.decisions.values())
        return decided == self.accepted and not self.open_windows + self.held_windows and self.settled == self.sealed


class MetricsScraper:
    """Reads the metrics pages of the roles. For one that does not answer its last page is used."""

    def __init__(self, http: httpx.AsyncClient, urls: Iterable[str]) -> None:
        self._http = http
        self._pages = dict.fromkeys(urls, "")

    async def read(self) -> MetricsReading:
        """Read all pages at the same time."""
        await asyncio.gather(*(self._ask(url) for url in self._pages))
        return reading("\n".join(self._pages.values()))

    async def _ask(self, url: str) -> None:
        try:
            answer = await self._http.get(url)
        except httpx.RequestError:
            return
        if answer.is_success:
            self._pages[url] = answer.text


def reading(pages: str) -> MetricsReading:
    """Return the sum of several pages."""
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families(pages):
        for sample in family.samples:
            labels = sample.labels
            which = labels.get("outcome") or labels.get("decision") or labels.get("status") or ""
            if sample.name == "lago_api_requests_total":
                which = labels["method"]
            sums[sample.name, which] += sample.value
            sums[sample.name, "*"] += sample.value
    return MetricsReading(
        accepted=int(sums["meterbridge_ingress_elements_total", "accepted"]),
        decisions={
            which: int(value)
            for (name, which), value in sums.items()
            if name == "meterbridge_calls_total" and which != "*"
        },
        processes=int(sums["meterbridge_build_info", "*"]),
        ledgers=int(sums["meterbridge_ledgers_open", "*"]),
        open_windows=int(sums["meterbridge_open_windows", "*"]),
        held_windows=int(sums["meterbridge_held_windows", "*"]),
        held_calls=int(sums["meterbridge_held_calls", "*"]),
        held_usd=sums["meterbridge_held_cost_usd", "*"],
        sealed=int(sums["meterbridge_events_emitted_total", "*"]),
        settled=int(
            sums["meterbridge_event_transitions_total", "completed"]
            + sums["meterbridge_event_transitions_total", "failed"]
        ),
        posts=int(sums["lago_api_requests_total", "POST"]),
        off_by=sums["meterbridge_ledger_imbalance", "*"],
        halted=int(sums["meterbridge_partition_halted", "*"]),
    )
