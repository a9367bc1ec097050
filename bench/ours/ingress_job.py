"""The webhook ingress as `meterbridge serve` builds it; prints its own cost after enough answers."""

import sys
import time

import uvloop
from aiohttp import web

from bench.ground import settings_of
from bench.serving import Answers, producer_for, serve
from connectors.ingest.auth import WebhookAuth
from connectors.ingest.routes import IngressDeps, ingress_routes
from connectors.ingest.store import ElementStore
from schemas.topics import TopicNames
from streams.runtime.garbage_collection import collect_seldom


async def main(bootstrap: str, prefix: str, secret: str, warm_up: int, requests: int) -> None:
    """Serve until `warm_up + requests` posts are answered; the first `warm_up` are not measured."""
    settings, answers = settings_of(bootstrap, prefix), Answers(warm_up, requests)
    topics, producer = TopicNames.with_prefix(prefix), producer_for(bootstrap)

    def answered(_source: str, status: int) -> None:
        if status != web.HTTPAccepted.status_code:
            raise RuntimeError(f"answered {status}")
        answers.count()

    store = ElementStore(producer, topics.raw, topics.rejected, settings.customer_id_fields, _now_us)
    deps = IngressDeps(
        store=store,
        auth=WebhookAuth([secret], []),
        timeout_s=30,
        max_body_bytes=settings.max_body_bytes,
        on_request=answered,
    )
    collect_seldom()  # as `meterbridge serve` does
    await serve(ingress_routes(deps), producer, answers)


def _now_us() -> int:
    return time.time_ns() // 1000


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4], *map(int, sys.argv[4:6])))
