"""The cost of a body is bounded: damaged elements are refused alone, and no other request waits for them."""

import asyncio
import gzip
import json
import resource
import time
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.ingress import Ingress, create_topics, reasons, running_ingress
from tests.support.kafka import Kafka

FIRST = '{"id":"first","end_user":"c","spend":0.1}'
LAST = '{"id":"last","end_user":"c","spend":0.2}'
MIB = 1 << 20
#: Processor time of this process while another sender waits, beside a body that is taken apart: pauses of the machine do
#: not count.
LONGEST_CPU_S = 1.0
EXTRA_MIB = 600


@pytest.fixture
async def ingress(kafka: Kafka, topic_prefix: str) -> AsyncIterator[Ingress]:
    create_topics(kafka.bootstrap, topic_prefix)
    async with running_ingress(kafka.bootstrap, topic_prefix) as running:
        yield running


DAMAGED = {
    "numbers": '{"id":"x","end_user":"c","spend":NaN,"x":[0' + ",0" * (8 * MIB) + "]}",
    "objects": '{"id":"x","end_user":"c","spend":NaN,"x":[{}' + ",{}" * (5 * MIB) + "]}",
    "brackets": '{"id":"x","end_user":"c","spend":NaN,"x":' + "[" * (8 * MIB) + "]" * (8 * MIB) + "}",
}


@pytest.mark.kafka
@pytest.mark.parametrize("damage", DAMAGED)
async def test_a_damaged_element_of_a_million_parts_is_refused_alone(
    ingress: Ingress, damage: str, figures: Callable[..., None]
) -> None:
    """Earlier 33 kB delayed others for 3.8 s and took 1.4 GB; 16 kB were a 503 after 30 s, again and again."""
    assert (await ingress.post(FIRST)).status == 202
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    packed = gzip.compress(f"[{FIRST},{DAMAGED[damage]},{LAST}]".encode())
    waits, cpu = list[float](), list[float]()
    posted = asyncio.ensure_future(ingress.post(packed, Content_Encoding="gzip"))
    while not posted.done():
        begun, cpu_begun = time.monotonic(), time.process_time()
        assert (await ingress.post(FIRST)).status == 202
        waits.append(time.monotonic() - begun)
        cpu.append(time.process_time() - cpu_begun)
        await asyncio.sleep(0.01)
    answer = await posted
    result = json.loads(await answer.read())
    assert answer.status == 202, result
    assert (result["accepted"], reasons(result)) == (2, [(1, "too_complex")])
    [rejection] = ingress.rejected()
    assert (rejection.reason, rejection.length) == ("too_complex", len(DAMAGED[damage]))
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) - before
    print(f"{damage}: {len(packed)} bytes; another sender waited {max(waits):.2f} s at most; {extra} MiB")
    figures(longest_wait_s=max(waits), extra_mib=extra, lost_neighbours=0)
    assert max(cpu) < LONGEST_CPU_S
    assert extra < EXTRA_MIB


@pytest.mark.kafka
async def test_a_damaged_call_with_a_long_conversation_is_accepted(ingress: Ingress) -> None:
    """Commas in prompts do not count as parts."""
    messages = [{"role": "user", "content": "a, b, [c], {d}, " * 500} for _ in range(200)]
    call = json.dumps({"id": "x", "end_user": "c", "spend": 0.25, "x": float("nan"), "messages": messages})
    answer = await ingress.post(f"[{FIRST},{call},{LAST}]")
    assert (answer.status, "rejected" in json.loads(await answer.read())) == (202, False)
    assert len(ingress.raw()) == 3


@pytest.mark.kafka
async def test_elements_without_any_field_of_a_call_share_a_rejection_beyond_a_hundred(ingress: Ingress) -> None:
    """In an earlier version 600 kB of `{}` made 200,000 records in Kafka, and as many rows in Postgres."""
    elements = [FIRST, *["{}"] * 20_000, LAST, *["1"] * 10, '{"id":"y","end_user":"c","spend":"a lot"}']
    begun = time.monotonic()
    answer = await ingress.post(f"[{','.join(elements)}]")
    result = json.loads(await answer.read())
    assert (answer.status, result["accepted"], len(result["rejected"])) == (202, 2, 20_011)
    assert result["rejected"][0] == {
        "index": 1,
        "reason": "not_a_call",
        "detail": "no field of a call was found in the object",
    }
    assert [place for place, one in enumerate(result["rejected"]) if "detail" in one] == list(range(20))
    assert result["rejected"][-1] == {"index": 20_012, "reason": "wrong_type"}
    assert ingress.elements["not_a_call"] == 20_000
    assert [stored.raw().call.id for stored in ingress.raw()] == ["first", "last"]
    rejections = ingress.rejected()
    assert len(rejections) == 102
    [shared] = [one for one in rejections if "share" in one.detail or "elements without" in one.detail]
    assert shared.detail == "19910 elements without anything of a call, the first of them at index 101"
    assert shared.length == 19_900 * 2 + 10
    print(f"{time.monotonic() - begun:.1f} s")


@pytest.mark.kafka
async def test_unusual_calls_keep_the_order_in_which_they_were_sent(ingress: Ingress) -> None:
    """A customer's calls keep their order, no matter which parser reads them."""
    calls = [
        f'{{"id":"{number}","end_user":"c","spend":0.1,"x":{"NaN" if number % 3 else "1"}}}' for number in range(2000)
    ]
    assert (await ingress.post(f"[{','.join(calls)}]")).status == 202
    assert [stored.raw().call.id for stored in ingress.raw()] == [str(number) for number in range(2000)]
