"""The plugin posts what the ingress takes: signed with its time or with a token, in batches, until all of it is stored."""

import asyncio
import gzip
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from connectors.ingest.auth import WebhookAuth
from connectors.kafka.producer import Record
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.posting import Poster
from meterbridge_litellm.record import record
from meterbridge_litellm.settings import Settings
from schemas.errors import Rejected, Unavailable
from schemas.money import quantum
from schemas.wire import RawRecord
from streams.core.metering.normalise import normalise
from tests.support.ingress import serving, store_in

SECRET, TOKEN = "a-secret-of-the-test", "a-token-of-the-test"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "litellm"
PAYLOAD: dict[str, Any] = json.loads((FIXTURES / "generic_api__1.109.1__chat-basic.json").read_text())


class Store:
    """Keeps records; the first posts fail."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.records = failures, list[Record]()

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("kafka_unavailable", "away")
        self.records += records
        return {}

    def identities(self) -> list[bytes]:
        return [
            normalise(msgspec.json.decode(value, type=RawRecord), key or "", quantum()).identity
            for topic, key, value, _ in self.records
            if topic == "litellm.usage.raw"
        ]


def poster(url: str, counts: Counts, http: httpx.Client | None = None, **credential: str) -> Poster:
    closing = threading.Event()
    closing.set()  # no pause between attempts
    settings = Settings(url=url, ring_path="unused", **credential)  # type: ignore[arg-type]
    return Poster(settings, counts, http or httpx.Client(trust_env=False), closing)


def calls(number: int) -> list[bytes]:
    return [record({**PAYLOAD, "litellm_call_id": f"call-{each}"}) for each in range(number)]


@pytest.mark.parametrize("credential", [{"secret": SECRET}, {"token": TOKEN}])
async def test_a_batch_is_stored_as_its_calls(credential: dict[str, str]) -> None:
    store, counts = Store(), Counts()
    auth = WebhookAuth((SECRET,), (TOKEN,), timestamp_required=True)
    async with serving(store_in(store), auth=auth) as ingress:
        url = str(ingress.client.make_url("/"))
        assert await asyncio.to_thread(poster(url, counts, **credential).post, calls(40))
    assert len(set(store.identities())) == 40
    assert counts.all() == {"posted": 40}


async def test_a_call_that_the_generic_api_callback_reports_too_is_the_same_call() -> None:
    store, counts = Store(), Counts()
    async with serving(store_in(store)) as ingress:
        url = str(ingress.client.make_url("/"))
        assert await asyncio.to_thread(poster(url, counts, token=TOKEN).post, [record(PAYLOAD)])
        await ingress.post(gzip.compress(json.dumps([PAYLOAD]).encode()), Content_Encoding="gzip")
    first, second = store.identities()
    assert first == second


async def test_what_is_not_stored_is_not_taken_as_posted() -> None:
    store, counts = Store(failures=1), Counts()
    async with serving(store_in(store)) as ingress:
        posting = poster(str(ingress.client.make_url("/")), counts, token=TOKEN)
        assert not await asyncio.to_thread(posting.post, calls(3))
        assert counts.all() == {}
        assert await asyncio.to_thread(posting.post, calls(3))
    assert len(store.identities()) == 3


async def test_a_wrong_secret_keeps_everything_and_is_told_without_it(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    async with serving(store_in(store), auth=WebhookAuth((SECRET,), ())) as ingress:
        posting = poster(str(ingress.client.make_url("/")), Counts(), secret="another-secret-of-it")
        assert not await asyncio.to_thread(posting.post, calls(1))
    assert store.records == []
    assert "http_401" in caplog.text
    assert "another-secret" not in caplog.text and "call-0" not in caplog.text


async def test_elements_that_the_ingress_rejects_are_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    store, counts = Store(), Counts()
    bad = record({**PAYLOAD, "litellm_call_id": "bad", "response_cost": -1.0})
    async with serving(store_in(store)) as ingress:
        posting = poster(str(ingress.client.make_url("/")), counts, token=TOKEN)
        assert await asyncio.to_thread(posting.post, [*calls(2), bad])
    assert counts.all() == {"posted": 3, "rejected": 1}
    assert '"negative_cost": 1' in caplog.text


async def test_a_body_that_is_too_large_is_posted_in_parts() -> None:
    store, counts = Store(), Counts()
    async with serving(store_in(store), max_body_bytes=8_000) as ingress:
        posting = poster(str(ingress.client.make_url("/")), counts, token=TOKEN)
        assert await asyncio.to_thread(posting.post, calls(40))
    assert len(set(store.identities())) == 40


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<h1>Log in</h1>"),
        httpx.Response(202, json=["another API"]),
        httpx.Response(202, content=b"{"),
        httpx.Response(302, headers={"location": "http://elsewhere"}),
        httpx.Response(429, headers={"retry-after": "7"}),
    ],
)
def test_an_answer_that_is_not_the_ingresss_keeps_everything(answer: httpx.Response) -> None:
    http = httpx.Client(transport=httpx.MockTransport(lambda _request: answer))
    counts = Counts()
    assert not poster("http://x", counts, http, token=TOKEN).post(calls(1))
    assert counts.all() == {}


def test_pauses_grow_while_nobody_answers_and_the_ingresss_own_is_kept() -> None:
    waited: list[float] = []

    class Closing(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            return False

    def away(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    settings = Settings(url="http://x", ring_path="unused", token=TOKEN)
    http = httpx.Client(transport=httpx.MockTransport(away))
    posting = Poster(settings, Counts(), http, Closing())
    for _ in range(12):
        assert not posting.post(calls(1))
    assert waited[0] <= 0.2 and 15 <= waited[-1] <= 30
    busy = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(503, headers={"retry-after": "9"})))
    assert not Poster(settings, Counts(), busy, Closing()).post(calls(1))
    assert waited[-1] == 9
