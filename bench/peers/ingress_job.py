"""The least an ingress can be: an aiohttp handler that awaits the ack of the body it was given.

`single`: the body as one record, not parsed, no signature; keys spread over the partitions as customers do. `array`: decoded, and a record an element produced.
"""

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web

from bench.stopwatch import Stopwatch
from connectors.kafka.producer import KafkaProducer, producer_config

_CUSTOMERS = 500
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


async def main(what: str, bootstrap: str, topic: str, warm_up: int, requests: int) -> None:
    """Serve until `warm_up + requests` posts are answered; the first ones are not measured."""
    watch, done, left = Stopwatch(), asyncio.Event(), warm_up + requests
    producer = KafkaProducer(producer_config(bootstrap, answer_within_s=30))

    async def take(request: web.Request) -> web.Response:
        nonlocal left
        body = await request.read()
        if what == "single":
            await producer.send_all([(topic, f"customer-{left % _CUSTOMERS}", body, 0)])
        else:
            await producer.send_all([(topic, one["end_user"] or "nobody", _encode(one), 0) for one in _decode(body)])
        left -= 1
        if left == requests:
            watch.start()
        if not left:
            watch.stop(requests)
            done.set()
        return web.Response(status=202)

    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.post("/webhook/litellm/usage", take)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"port {runner.addresses[0][1]}", flush=True)
    await done.wait()
    await asyncio.sleep(0.2)
    await runner.cleanup()
    await producer.close(5)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4], *map(int, sys.argv[4:6])))
