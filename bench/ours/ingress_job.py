"""The webhook ingress as `meterbridge serve` builds it; tells its own CPU when it has answered enough."""

import asyncio
import sys

import uvloop
from aiohttp import web

from bench.ground import settings_of
from bench.stopwatch import Stopwatch
from connectors.http.auth import WebhookAuth
from connectors.http.ingress import IngressDeps, ingress_routes
from connectors.http.storing import Store
from connectors.kafka.producer import KafkaProducer, producer_config
from schemas.moments import SECOND_US
from schemas.topics import TopicNames
from streams.garbage import collect_seldom


async def main(bootstrap: str, prefix: str, secret: str, warm_up: int, requests: int) -> None:
    """Serve until `warm_up + requests` posts are answered; the first ones are not measured."""
    settings = settings_of(bootstrap, prefix)
    topics = TopicNames.with_prefix(prefix)
    watch, done, left = Stopwatch(), asyncio.Event(), warm_up + requests

    def answered(_source: str, status: int) -> None:
        nonlocal left
        if status != web.HTTPAccepted.status_code:
            raise RuntimeError(f"answered {status}")
        left -= 1
        if left == requests:
            watch.start()
        if not left:
            watch.stop(requests)
            done.set()

    producer = KafkaProducer(producer_config(bootstrap, answer_within_s=30))
    store = Store(producer, topics.raw, topics.rejected, settings.customer_id_fields, _now_us)
    deps = IngressDeps(
        store=store,
        auth=WebhookAuth([secret], []),
        timeout_s=30,
        max_body_bytes=settings.max_body_bytes,
        on_request=answered,
    )
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(ingress_routes(deps))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collect_seldom()
    print(f"port {runner.addresses[0][1]}", flush=True)
    await done.wait()
    await asyncio.sleep(0.2)
    await runner.cleanup()
    await producer.close(5)


def _now_us() -> int:
    return int(asyncio.get_running_loop().time() * SECOND_US)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4], *map(int, sys.argv[4:6])))
