"""Scenarios: how records are posted, and what is lost with the proxy."""

import asyncio

from tests.litellm_matrix.scenario import Ask, scenario

_CALLS, _MANY = 5, 20


async def _calls(ask: Ask, count: int = _CALLS) -> None:
    """This number of calls at the same time."""
    words = (f"hello {number}" for number in range(count))
    await asyncio.gather(*(ask.chat(messages=[{"role": "user", "content": word}]) for word in words))


@scenario("ndjson", "`log_format: ndjson`, five calls", "delivery", route="ndjson")
async def _ndjson(ask: Ask) -> None:
    await _calls(ask)


@scenario("single", "`log_format: single`, five calls", "delivery", route="single")
async def _single(ask: Ask) -> None:
    await _calls(ask)


@scenario("outage", "the endpoint answers 503 twice, five calls", "delivery", route="outage")
async def _outage(ask: Ask) -> None:
    await _calls(ask)


@scenario("race", "calls end while a slow endpoint takes a post", "delivery", route="slow")
async def _race(ask: Ask) -> None:
    for _ in range(_MANY // 4):
        await _calls(ask, 4)


async def _ended(ask: Ask, *, kill: bool) -> None:
    """A call that has arrived shows that a flush has just finished: the next calls are in the queue when the proxy
    ends.
    """
    proxy, before = ask.scenario.proxy, ask.proxies.arrived_at(ask.scenario.endpoint)
    await _calls(ask, 1)
    await ask.proxies.arrived(ask.scenario.endpoint, before + 1)
    await _calls(ask, _CALLS - 1)
    await ask.proxies.end(proxy, kill=kill)


@scenario("sigterm", "SIGTERM with four of five calls in the queue", "delivery", proxy="sigterm", last=True)
async def _sigterm(ask: Ask) -> None:
    await _ended(ask, kill=False)


@scenario("sigkill", "SIGKILL with four of five calls in the queue", "delivery", proxy="main", last=True)
async def _sigkill(ask: Ask) -> None:
    await _ended(ask, kill=True)


@scenario("plugin", "our plugin instead of `generic_api`, five calls", "delivery", proxy="plugin")
async def _plugin(ask: Ask) -> None:
    await _calls(ask)


@scenario("plugin-stream", "the plugin, streamed", "delivery", proxy="plugin")
async def _plugin_stream(ask: Ask) -> None:
    await ask.stream()


@scenario(
    "plugin-killed",
    "the plugin, SIGKILL right after the fifth answer",
    "delivery",
    proxy="plugin-killed",
    route="plugin",
    last=True,
)
async def _plugin_killed(ask: Ask) -> None:
    await _calls(ask)
    await ask.proxies.end("plugin-killed", kill=True)
