"""Taking a metered event: under which org's id it is stored, and when it is durable."""

from unicodedata import normalize

import msgspec
import pytest

from connectors.billing.metered_events import metered
from connectors.billing.usage_recorder import KafkaUsage
from schemas.errors import Rejected, Unavailable
from schemas.moments import SECOND_US
from schemas.wire import Metered, RawRecord
from tests.support.calls import NOON


@pytest.mark.parametrize("org_id", ["org_cafe\u0301", "org_\u212b", "org_\u1112\u1161\u11ab"])
def test_an_org_id_that_normalisation_would_change_is_refused_with_an_explanation(org_id: str) -> None:
    """The record would have the id that Lago knows, Kafka's key the normalised one, and the usage would be held
    forever.
    """
    with pytest.raises(Rejected, match="bad_event") as refusal:
        metered(org_id, "code", "tx", None, None, NOON)
    assert "normal form C" in refusal.value.detail
    composed = normalize("NFC", org_id)
    assert metered(composed, "code", "tx", None, None, NOON).org_id == composed


async def test_an_event_is_acknowledged_once_it_is_durable_and_not_before() -> None:
    class Broker:
        def __init__(self) -> None:
            self.stored: list[tuple[str, str | None, bytes, int]] = []
            self.away = True

        async def send_one(self, record: tuple[str, str | None, bytes, int]) -> tuple[int, int]:
            if self.away:
                raise Unavailable("kafka_timeout")
            self.stored.append(record)
            return 0, 0

    broker, named = Broker(), list[str]()
    sink = KafkaUsage(broker, "raw", now_us=lambda: NOON + 1500, named=named.append)
    event = metered("org", "code", "tx", None, NOON / SECOND_US, NOON)
    with pytest.raises(Unavailable):
        await sink.record(event)
    assert named == []
    broker.away = False
    await sink.record(event)
    [(topic, key, value, time_ms)] = broker.stored
    assert (topic, key, time_ms, named) == ("raw", "org", NOON // 1000 + 1, ["org"])
    record = msgspec.json.decode(value, type=RawRecord)
    assert (record.v, record.source, record.shape, record.received_at) == (1, "api", "metered", NOON + 1500)
    assert record.metered == Metered("org", "tx", "code", NOON, {"org_id": "org"})
