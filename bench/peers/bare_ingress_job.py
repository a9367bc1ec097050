"""The smallest possible ingress: an aiohttp handler that awaits Kafka's acknowledgement of the body.

`single`: the body as one record, not parsed, no signature; keys are spread over the partitions as customers are.
`array`: the body is decoded, and each element is one record.
"""

import sys
from itertools import cycle

import msgspec
import uvloop
from aiohttp import web

from bench.serving import Answers, producer_for, serve

_CUSTOMERS = 500
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


async def main(what: str, bootstrap: str, topic: str, warm_up: int, requests: int) -> None:
    """Serve until `warm_up + requests` posts are answered; the first `warm_up` are not measured."""
    answers, producer = Answers(warm_up, requests), producer_for(bootstrap)

    customers = cycle(f"customer-{number}" for number in range(_CUSTOMERS))

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if what == "single":
            await producer.send_all([(topic, next(customers), body, 0)])
        else:
            await producer.send_all([(topic, one["end_user"] or "nobody", _encode(one), 0) for one in _decode(body)])
        answers.count()
        return web.Response(status=202)

    await serve([web.post("/webhook/litellm/usage", take)], producer, answers)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4], *map(int, sys.argv[4:6])))
