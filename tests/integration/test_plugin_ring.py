"""The LiteLLM plugin's ring with a real ingress and Kafka: a refused record blocks no other."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from meterbridge_litellm.aside import files_of, records_of
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.lane import Lane, frame
from meterbridge_litellm.posting import Poster
from meterbridge_litellm.record import record
from meterbridge_litellm.ring import Ring
from meterbridge_litellm.settings import PluginSettings
from tests.support.ingress import create_topics, running_ingress
from tests.support.kafka import Kafka

PAYLOAD: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "litellm" / "generic_api__1.109.1__chat-basic.json").read_text()
)
_LIMIT_S = 30.0


def call(name: str, **more: Any) -> bytes:
    return record({**PAYLOAD, "id": name, "litellm_call_id": name, **more})


def ended_files(folder: Path) -> list[Path]:
    return list(folder.glob("ended.*"))


@pytest.mark.kafka
async def test_a_record_that_the_ingress_refuses_is_kept_apart_and_all_others_are_in_kafka_once(
    kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Without this rule one such record would block its ring, and a batch of them the ring of an ended process."""
    create_topics(kafka.bootstrap, topic_prefix)
    ended = Lane(tmp_path, "ended")
    hostile = [call(f"hostile-{number}", cost_breakdown={"input_cost": "1" * 20_000}) for number in range(40)]
    ended.segment(1).write_bytes(b"".join(map(frame, [*hostile, call("after-them")])))
    ended.close()
    counts = Counts()
    async with running_ingress(kafka.bootstrap, topic_prefix, max_body_bytes=16_000) as ingress:
        url = str(ingress.client.make_url("/"))
        settings = PluginSettings(url=url, ring_path=str(tmp_path), token="t", flush_seconds=0.01)
        http = httpx.Client(trust_env=False)
        ring = await asyncio.to_thread(Ring, settings, counts, Poster(settings, counts, http).post)
        for number in range(30):
            ring.append(call(f"call-{number}"))
            if number == 10:
                ring.append(call("large", cost_breakdown={"input_cost": "1" * 20_000}))
        for _ in range(int(_LIMIT_S * 10)):
            if counts.all().get("set_aside") == 41 and not ended_files(tmp_path):
                break
            await asyncio.sleep(0.1)
        await asyncio.to_thread(ring.close)
        stored = {each.raw().call.litellm_call_id for each in ingress.raw()}
    aside = [json.loads(line)["litellm_call_id"] for path in files_of(tmp_path) for line in records_of(path)]
    assert stored == {f"call-{number}" for number in range(30)} | {"after-them"}
    assert sorted(aside) == sorted(["large", *(f"hostile-{number}" for number in range(40))])
