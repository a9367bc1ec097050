"""The plugin posts what the ingress accepts: signed with its time or with a token, in batches, until everything is
stored.
"""

import asyncio
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from connectors.ingest.auth import WebhookAuth
from connectors.kafka.producer import Record
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.posting import Posted, Poster
from meterbridge_litellm.record import record
from meterbridge_litellm.settings import PluginSettings
from schemas.errors import Rejected, Unavailable
from schemas.rounding import quantum
from schemas.wire import RawRecord
from streams.core.metering.normalise import normalise
from tests.support.ingress import serving, store_in

SECRET, TOKEN = "a-secret-of-the-test", "a-token-of-the-test"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "litellm"
PAYLOAD: dict[str, Any] = json.loads((FIXTURES / "generic_api__1.109.1__chat-basic.json").read_text())


class Store:
    """Stores records; the first posts fail."""

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
    settings = PluginSettings(url=url, ring_path="unused", **credential)  # type: ignore[arg-type]
    return Poster(settings, counts, http or httpx.Client(trust_env=False))


async def posted(posting: Poster, records: Sequence[bytes]) -> bool:
    """Whether the ingress has all of them."""
    return await asyncio.to_thread(posting.post, records) == Posted()


def calls(number: int) -> list[bytes]:
    return [record({**PAYLOAD, "litellm_call_id": f"call-{each}"}) for each in range(number)]


@pytest.mark.parametrize("credential", [{"secret": SECRET}, {"token": TOKEN}])
async def test_a_batch_is_stored_as_its_calls(credential: dict[str, str]) -> None:
    store, counts = Store(), Counts()
    auth = WebhookAuth((SECRET,), (TOKEN,), timestamp_required=True)
    async with serving(store_in(store), auth=auth) as ingress:
        url = str(ingress.client.make_url("/"))
        assert await posted(poster(url, counts, **credential), calls(40))
    assert len(set(store.identities())) == 40
    assert counts.all() == {"posted": 40}


async def test_a_call_that_the_generic_api_callback_reports_too_is_the_same_call() -> None:
    store, counts = Store(), Counts()
    async with serving(store_in(store)) as ingress:
        url = str(ingress.client.make_url("/"))
        assert await posted(poster(url, counts, token=TOKEN), [record(PAYLOAD)])
        await ingress.post(gzip.compress(json.dumps([PAYLOAD]).encode()), Content_Encoding="gzip")
    first, second = store.identities()
    assert first == second


async def test_records_that_were_not_stored_do_not_count_as_posted() -> None:
    store, counts = Store(failures=1), Counts()
    async with serving(store_in(store)) as ingress:
        posting = poster(str(ingress.client.make_url("/")), counts, token=TOKEN)
        assert not await posted(posting, calls(3))
        assert counts.all() == {}
        assert await posted(posting, calls(3))
    assert len(store.identities()) == 3


async def test_with_a_wrong_secret_all_records_are_kept_and_the_error_does_not_show_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    async with serving(store_in(store), auth=WebhookAuth((SECRET,), ())) as ingress:
        posting = poster(str(ingress.client.make_url("/")), Counts(), secret="another-secret-of-it")
        created = await asyncio.to_thread(posting.post, calls(1))
    assert store.records == []
    assert created == Posted("http_401")
    assert "another-secret" not in caplog.text and "call-0" not in caplog.text


async def test_elements_that_the_ingress_rejects_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    store, counts = Store(), Counts()
    bad = record({**PAYLOAD, "litellm_call_id": "bad", "response_cost": -1.0})
    async with serving(store_in(store)) as ingress:
        posting = poster(str(ingress.client.make_url("/")), counts, token=TOKEN)
        assert await posted(posting, [*calls(2), bad])
    assert counts.all() == {"posted": 3, "rejected": 1}
    assert '"negative_cost": 1' in caplog.text


async def test_a_body_that_is_too_large_is_posted_in_parts() -> None:
    store, counts = Store(), Counts()
    async with serving(store_in(store), max_body_bytes=8_000) as ingress:
        posting = poster(str(ingress.client.make_url("/")), counts, token=TOKEN)
        assert await posted(posting, calls(40))
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
def test_an_answer_that_is_not_the_ingresss_keeps_all_records(answer: httpx.Response) -> None:
    http = httpx.Client(transport=httpx.MockTransport(lambda _request: answer))
    counts = Counts()
    assert poster("http://x", counts, http, token=TOKEN).post(calls(1)).problem
    assert counts.all() == {}


async def test_a_single_element_is_refused_for_itself_if_the_ingress_accepts_others() -> None:
    """The real ingress answers a body of one record that is too large with 413, and a body without a call with 202."""
    store, counts = Store(), Counts()
    large = record({**PAYLOAD, "litellm_call_id": "large", "cost_breakdown": {"input_cost": "1" * 9_000}})
    async with serving(store_in(store), max_body_bytes=8_000) as ingress:
        posting = poster(str(ingress.client.make_url("/")), counts, token=TOKEN)
        assert await asyncio.to_thread(posting.post, [large]) == Posted("", ((large, 413),))
        created = await asyncio.to_thread(posting.post, [*calls(20), large, *calls(20)])
    assert created == Posted("", ((large, 413),))
    assert len(store.identities()) == 40 and len(set(store.identities())) == 20
    assert counts.all() == {"posted": 40}


@pytest.mark.parametrize("status", [400, 413])
def test_a_server_that_refuses_everything_is_not_believed(status: int) -> None:
    """For example a proxy in between that requires TLS: the records stay."""
    http = httpx.Client(transport=httpx.MockTransport(lambda _request: httpx.Response(status)))
    assert poster("http://x", Counts(), http, token=TOKEN).post(calls(3), 9) == Posted(f"http_{status}")


@pytest.mark.parametrize(("failures", "refused"), [(0, False), (2, False), (3, True)])
def test_a_record_that_crashes_the_server_is_found_after_several_crashes(failures: int, refused: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500) if b"call-3" in request.content else httpx.Response(202, json={"status": "accepted"})

    given, counts = calls(6), Counts()
    posting = poster("http://x", counts, httpx.Client(transport=httpx.MockTransport(answer)), token=TOKEN)
    created = posting.post(given, failures)
    assert created == (Posted("", ((given[3], 500),)) if refused else Posted("http_500"))
    assert posting.post([given[3]], 9) == Posted("http_500"), "alone it may as well be the server"


def test_one_large_record_makes_only_the_next_batches_small() -> None:
    sizes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sizes.append(request.content.count(b'"litellm_call_id"'))
        large = b'"call-7"' in request.content
        return httpx.Response(413) if large else httpx.Response(202, json={"status": "accepted"})

    posting = poster("http://x", Counts(), httpx.Client(transport=httpx.MockTransport(answer)), token=TOKEN)
    assert [status for _, status in posting.post(calls(400)).refused] == [413]
    for _ in range(3):
        sizes.clear()
        posting.post([each for each in calls(400) if b'"call-7"' not in each])
    assert len(sizes) == 1


def test_the_pause_that_the_ingress_asks_for_is_returned() -> None:
    busy = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(503, headers={"retry-after": "9"})))
    assert poster("http://x", Counts(), busy, token=TOKEN).post(calls(1)) == Posted("http_503", (), 9.0)
