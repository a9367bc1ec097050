"""A server that measures itself. Both ingresses use it, so that only the handler differs.

The producer's settings are the only part of the product here.
"""

import asyncio
from collections.abc import Iterable

from aiohttp import web

from bench.stopwatch import Stopwatch
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer

_LARGEST_BODY = 1 << 30
#: Time for the last answers to leave, seconds.
_LINGER_S = 0.2


def producer_for(bootstrap: str) -> KafkaProducer:
    """The producer of both contestants; call it inside a running loop."""
    return KafkaProducer(producer_config(bootstrap, answer_within_s=30))


class Answers:
    """Counts answers: those after the first `warm_up` are measured; the last one sets `done`."""

    def __init__(self, warm_up: int, requests: int) -> None:
        self.done = asyncio.Event()
        self._watch = Stopwatch()
        self._requests = requests
        self._left = warm_up + requests

    def count(self) -> None:
        """Count one answer."""
        self._left -= 1
        if self._left == self._requests:
            self._watch.start()
        if not self._left:
            self._watch.stop(self._requests)
            self.done.set()


async def serve(routes: Iterable[web.AbstractRouteDef], producer: KafkaProducer, answers: Answers) -> None:
    """Serve on a free port of loopback, print the port, and return after the last counted answer."""
    app = web.Application(client_max_size=_LARGEST_BODY)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"port {runner.addresses[0][1]}", flush=True)
    await answers.done.wait()
    await asyncio.sleep(_LINGER_S)
    await runner.cleanup()
    await producer.close(5)
