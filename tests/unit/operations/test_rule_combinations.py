"""Rules that are right alone must also be right together: jobs, clocks, the usage log, and refused batches."""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError

from connectors.config.connections import kafka_connection
from connectors.config.settings import load_settings
from connectors.ingest.background_responses import answer_id_of
from connectors.operations import sender as sender_module
from connectors.operations.reread import read_again
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.errors import TopicProblem, Unavailable
from schemas.moments import HOUR_US
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from schemas.records import Rejection
from schemas.rounding import quantum
from streams.core.delivery.batches import Item
from streams.core.delivery.circuit_breaker import Breaker
from streams.core.delivery.restamp import RestampDecision
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.matching import KNOWN, MISSING, PRICED, LoggedCall, verdict
from streams.core.metering.read_usage import usage_of
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.folding import Partition
from tests.support.sink import POLICY, Sink
from tests.support.virtual_time import run_virtually
from tests.unit.streams.core.delivery.test_restamp import ScriptedLago, value
from tests.unit.streams.core.metering.test_jobs import poll

UNIT = quantum()


def response(number: int, hours: float, cost: str = "0.5", response_id: str = "resp_1") -> Raw:
    """A response to a normal, not a background, request."""
    at_us = NOON + round(hours * HOUR_US)
    fields = {"id": response_id, "call_type": "aresponses", "cost": cost, "at_us": at_us}
    return raw(0, slp(number, **fields), received_us=at_us)


def logged_call(usage: Usage, **fields: Any) -> LoggedCall:
    """Return the row of the call in the usage log."""
    row = LoggedCall(
        usage.identity,
        "billable",
        usage.status,
        usage.cost,
        billed=True,
        customer_id=usage.customer_id,
        id_kind=usage.id_kind,
        model=usage.model,
        call_id=usage.call_id,
        request_id=usage.request_id,
        start_us=usage.start_us,
    )
    return row._replace(**fields)


def usages(*records: Raw, customer: str = "acme") -> Sequence[Usage]:
    return [usage_of(record.value, customer, UNIT) for record in records]


@pytest.mark.parametrize("read_between", [True, False])
def test_a_read_without_cost_is_not_kept_longer_than_the_call_that_settled_its_job(read_between: bool) -> None:
    partition = Partition().take(poll(5, job="resp_1", call_type="aget_responses", cost="0", hours=0))
    partition.take(response(1, 0.1))
    if read_between:
        partition.take(poll(6, job="resp_1", call_type="aget_responses", hours=1))
    partition.idle(30)
    partition.take(poll(7, job="resp_1", call_type="aget_responses", hours=32))
    assert partition.cost == Decimal("0.5")


def test_two_responses_with_one_provider_id_are_two_for_the_usage_log_as_for_the_meter() -> None:
    first, second = response(1, 0, response_id="resp_213"), response(2, 5.1, response_id="resp_213")
    assert Partition().take(first, second).billed.calls == 2
    one, other = usages(first, second)
    assert verdict(other, [logged_call(one)], MeterPolicy()).word == MISSING
    assert verdict(other, [logged_call(one, customer_id="beta")], MeterPolicy()).word == MISSING


def test_the_price_of_a_job_is_billed_to_the_customer_of_its_row() -> None:
    """Alice created the batch, bob read it; LiteLLM's row with its cost is alice's."""
    [read] = usages(poll(5, job="batch_1", cost="0", hours=0), customer="bob")
    [row] = usages(poll(6, job="batch_1", cost="12", hours=1), customer="alice")
    looked = logged_call(read, decision="zero_cost", billed=False, cost=Decimal(0))
    assert verdict(row, [looked], MeterPolicy()).word == MISSING
    hers = looked._replace(identity=row.identity, customer_id="alice")
    for rows in ([looked, hers], [hers, looked]):
        found = verdict(row, rows, MeterPolicy())
        assert (found.word, found.row) == (PRICED, hers)
    assert verdict(row, [looked._replace(billed=True, cost=Decimal(12))], MeterPolicy()).word == KNOWN


def test_the_cost_of_a_success_is_not_matched_with_a_failed_attempt_before_it() -> None:
    tried, [success] = usages(response(1, 0, "0", "call-1"))[0], usages(response(1, 0, "0.5", "chatcmpl-1"))
    failed = logged_call(tried, decision="failed_call", status="failure", billed=False, call_id=success.call_id)
    assert verdict(success, [failed], MeterPolicy()).word == MISSING


def test_an_event_refused_without_a_post_says_nothing_about_lagos_health() -> None:
    """Lago answers 500; beside it every event of an ended subscription is refused. Valid events are held, not retried."""

    async def go() -> bool:
        lago = ScriptedLago(fault=lambda _number, _ids: "500")
        breaker, semaphore = Breaker(POLICY), asyncio.Semaphore(4)
        sound, ended = (Sink(lago, breaker, semaphore) for _ in range(2))

        def judge(event: bytes) -> RestampDecision:
            return RestampDecision(event, refused="ended" if b'"transaction_id":"e' in event else "")

        async def refuse() -> None:
            for number in range(60):
                await asyncio.sleep(20)
                await ended.delivery.deliver([Item(f"e{number}", value(f"e{number}"), False)], judge=judge)

        refusing = asyncio.ensure_future(refuse())
        items = [Item(f"g{number}", value(f"g{number}"), False) for number in range(20)]
        delivering = asyncio.ensure_future(sound.delivery.deliver(items, judge=judge))
        done, _ = await asyncio.wait({delivering}, timeout=1500)
        refusing.cancel()
        delivering.cancel()
        return not done

    assert run_virtually(go())


def test_an_answer_is_read_the_same_with_any_other_fields_beside_it() -> None:
    answer = '{"created_at":1795176000,"output":[{"id":"msg_1"}]}'
    plain = answer_id_of(f'{{"response":{answer}}}'.encode())
    assert plain != ""
    assert answer_id_of(f'{{"score":NaN,"response":{answer}}}'.encode()) == plain
    assert answer_id_of(f'{{"response":{answer.replace("6000,", "6000.0,")}}}'.encode()) == plain


def test_two_answers_in_one_second_without_output_are_not_distinguished_by_the_answer() -> None:
    for output in ([], [{"type": "message"}]):
        assert answer_id_of(json.dumps({"response": {"created_at": 1795176000, "output": output}}).encode()) == ""


def test_a_call_whose_customer_could_not_be_read_is_never_given_to_another() -> None:
    rest = {"id": "r", "spend": 1, "metadata": {"user_api_key_user_id": "bob"}}
    refused = Rejection("wrong_type", "ingress", NOON, "external_customer_id")
    refused.call = msgspec.Raw(json.dumps(rest).encode())
    assert read_again(refused, CUSTOMER_ID_FIELDS) is None


class _Forgetful:
    """A producer whose first record times out, and no other."""

    flushes = 0

    def __init__(self, _config: object) -> None:
        self._told: list[Any] = []

    def produce(self, _topic: str, _value: bytes, _key: bytes, *, on_delivery: Any, **_more: object) -> None:
        self._told.append(on_delivery)

    def list_topics(self, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(topics={"raw": None} if timeout else {})

    def poll(self, _seconds: float) -> int:
        return 0

    def flush(self, _seconds: float) -> int:
        _Forgetful.flushes += 1
        for tell in self._told:
            tell(KafkaError(KafkaError._MSG_TIMED_OUT) if _Forgetful.flushes == 1 else None, None)
        self._told = []
        return 0


def test_a_record_that_kafka_did_not_accept_does_not_stop_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sender releases late calls for the whole life of its process."""
    monkeypatch.setattr(sender_module, "Producer", _Forgetful)
    sender = CommandProducer(kafka_connection(load_settings({})))
    record = Outgoing("raw", b"k", b"v")
    with pytest.raises(Unavailable):
        sender.send([record])
    assert sender.send([record]) == 1


def test_a_topic_that_does_not_exist_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka would wait half a minute for it, and then say that Kafka does not answer."""
    monkeypatch.setattr(sender_module, "Producer", _Forgetful)
    sender = CommandProducer(kafka_connection(load_settings({})))
    with pytest.raises(TopicProblem, match="Topic audit is missing: run `meterbridge topics create`"):
        sender.send([Outgoing("audit", b"k", b"v")])
