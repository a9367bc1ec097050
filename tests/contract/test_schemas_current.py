"""The committed schemas are those of the types, and match what is really written and read."""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml
from aiokafka import ConsumerRecord, TopicPartition
from jsonschema import Draft202012Validator, ValidationError

from connectors.ingest.body_splitter import split, wrapped_in
from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement, rejection
from schemas import webhooks
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.generate import FOLDER, OUTBOUND, files
from schemas.ledger import Position
from schemas.policy import MeterPolicy
from schemas.records import AuditRecord, DeliveryAttempt
from schemas.topics import CATALOGUE, CHANGELOG, TopicNames
from schemas.wire import FLAT
from streams.agents.received_event import ReceivedEvent
from streams.agents.sink import DeliveryConfig, DeliveryWork
from streams.core.delivery.batches import EventOutcome
from streams.core.mapping.held_reasons import NO_MAPPING
from streams.core.mapping.resolve import Target
from streams.core.metering.close_window import seal
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes, apply
from streams.state.step_writes import writes_of
from tests.support.calls import NOON, raw, raw_value, slp
from tests.support.rate_cards import card, entry

RECORDED = Path(__file__).parents[1] / "fixtures" / "litellm"
POLICY = MeterPolicy()
ORGS = {"org": OrgRecord("org", "Acme", "ai_basic", "USD", periods=(Period("sub", 0), Period("old", 0, NOON)))}
CUSTOMER = CustomerRecord("acme", (MappingVersion(NOON, "org", "tenant"), MappingVersion(NOON + 1, "o", "t")), 1, 2)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / f"{name}.schema.json").read_text()))


def folded_and_sealed() -> tuple[Changes, Changes]:
    """Two changes of a ledger: billed, held, unbilled and rejected calls folded; then what is billed sealed."""
    calls = [
        raw(0, slp(0)),
        raw(1, slp(1, cost="1e-7")),
        raw(2, slp(2), customer="stranger"),
        raw(3, slp(3, cost="0", status="failure")),
        raw(4, slp(4, cost="-1")),
        raw(5, {}),
    ]

    def resolve(customer: str, _at_us: int, _kind: str) -> Target:
        return Target("org", "sub") if customer == "acme" else Target("", "", NO_MAPPING)

    ledger = LedgerState(Position())
    folded = Fold(POLICY, "d-t-3-")(ledger, calls, resolve)
    apply(ledger, folded, NOON)
    return folded, seal(ledger.position, [ledger.windows[0]], ORGS, POLICY, "d-t-3-", 3, NOON)


def written() -> Iterator[tuple[str, bytes]]:
    """(schema, value) of records as this product writes them."""
    folded, sealed = folded_and_sealed()
    yield "RawRecord", raw_value(slp(1))
    yield from (("EnrichedUsage", value) for _, value in folded.enriched)
    yield from (("Rejection", value) for _, value in folded.rejected)
    yield "Rejection", rejection(InvalidElement("not_json", offset=3), b"{]", NOON)
    for write in writes_of(sealed, TopicNames.with_prefix(), 3):
        yield ("Receipt" if write.topic == "billing.receipts" else "LagoEvent"), write.value or b""
        yield from (("Manifest", value) for name, value in write.headers if name == "manifest")
    priced = card(entry("openai/*", input="0.2"), default=entry(markup_percent="20"), plan={"pro": "0.9"})
    yield "RateCard", msgspec.json.encode(priced)
    yield "AuditRecord", msgspec.json.encode(AuditRecord("a1", NOON, "ada", "replay", {"from": "x"}, "again", 3))
    yield (
        "DeliveryAttempt",
        msgspec.json.encode(DeliveryAttempt(NOON, "out", "events.batch", 500, 7, "http_500", 2, 100)),
    )
    yield "CustomerRecord", msgspec.json.encode(CUSTOMER)
    yield "OrgRecord", msgspec.json.encode(ORGS["org"])


def onward(status: str) -> Any:
    """What the sink writes about an event that Lago refused."""
    _, sealed = folded_and_sealed()
    event = next(writes_of(sealed, TopicNames.with_prefix(), 3))
    tp = TopicPartition("billing.lago.events", 1)
    unused: Any = None
    policy = MeterPolicy(deployment="d")
    config = DeliveryConfig(
        {}, TopicNames.with_prefix(), "g", policy, 3, 60.0, 5.0, lambda: 0.5, lambda: NOON, asyncio.sleep
    )
    work = DeliveryWork(tp, config, unused, unused, unused)
    record: ConsumerRecord[bytes, bytes] = ConsumerRecord(
        *tp, 7, NOON // 1000, 0, event.key, event.value, None, 0, 0, tuple(event.headers)
    )
    return work._onward(ReceivedEvent(record), EventOutcome("retry", "http_500", "HTTP 500", 1), status, 1)


def test_the_committed_files_are_generated_from_the_types() -> None:
    """`python -m schemas.generate` writes them."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == files()


@pytest.mark.parametrize("name", [name for name in files() if name.endswith(".json")])
def test_every_schema_is_valid_and_has_a_description(name: str) -> None:
    schema = json.loads((FOLDER / name).read_text())
    Draft202012Validator.check_schema(schema)
    assert all(part["description"] for part in schema["$defs"].values())


def test_every_outgoing_webhook_has_a_schema_and_its_types_are_on_the_page() -> None:
    assert set(get_args(webhooks.Message)) <= set(OUTBOUND)
    page = (FOLDER.parents[1] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    assert [kind for kind in webhooks.EVENT_TYPES if f"`{kind}`" not in page] == []


def test_every_written_record_fits_its_schema() -> None:
    """Messages of webhooks are no records: tests/integration/test_outgoing_webhooks.py."""
    seen = set()
    for name, value in written():
        validator(name).validate(json.loads(value))
        seen.add(f"{name}.schema.json")
    sent = {name for name in files() if name.endswith(("Message.schema.json", "Webhook.schema.json"))}
    assert seen == files().keys() - {"asyncapi.yaml", "Call.schema.json", "CallContext.schema.json"} - sent


def test_the_context_of_a_recorded_call_fits_its_schema() -> None:
    [element] = split((RECORDED / "generic_api__1.109.1__chat-basic.json").read_bytes())
    stored = strip(element, FLAT, NOON, CUSTOMER_ID_FIELDS)
    assert stored is not None
    context = json.loads(stored[1])["context"]
    validator("CallContext").validate(context)
    assert {"cost_breakdown", "time_to_first_token", "model_id", "server_address"} <= context.keys()


@pytest.mark.parametrize(
    "file", [path.name for path in sorted(RECORDED.glob("*.json")) if not path.name.endswith(".headers.json")]
)
def test_every_recorded_call_and_its_stored_form_fit_their_schemas(file: str) -> None:
    calls, records = validator("Call"), validator("RawRecord")
    body = (RECORDED / file).read_bytes()
    for element in split(wrapped_in(body) or body):
        calls.validate(json.loads(bytes(memoryview(element))))
        stored = strip(element, FLAT, NOON, CUSTOMER_ID_FIELDS)
        assert stored is not None
        records.validate(json.loads(stored[1]))


@pytest.mark.parametrize("amount", [0.000145, "0.000145", "8.85e-06", 1, None])
def test_a_sender_may_write_an_amount_as_a_number_or_as_text(amount: object) -> None:
    validator("Call").validate({"spend": amount})


@pytest.mark.parametrize(("amount", "fits"), [("0.000145", True), ("1E-7", True), (0.000145, False), ("", False)])
def test_an_amount_of_ours_is_decimal_text_and_never_a_float(amount: object, fits: bool) -> None:
    folded, _ = folded_and_sealed()
    record = json.loads(folded.enriched[0][1])
    assert Decimal(record["cost_usd"]) == Decimal("0.000145")
    assert validator("EnrichedUsage").is_valid({**record, "cost_usd": amount}) is fits


def test_a_record_without_a_required_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="'transaction_id' is a required property"):
        validator("Receipt").validate({"status": "pending", "at": 1})


def test_the_contract_covers_every_topic_except_the_meters_own() -> None:
    channels = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())["channels"]
    assert list(channels) == [topic.name for topic in CATALOGUE if topic is not CHANGELOG]
    for name, channel in channels.items():
        assert channel["address"] == name
        for message in channel["messages"].values():
            assert (FOLDER / message["payload"]["$ref"]).is_file()
            assert message["bindings"]["kafka"]["key"]["description"]


def test_the_contract_lists_exactly_the_headers_that_are_written() -> None:
    _, sealed = folded_and_sealed()
    event = next(writes_of(sealed, TopicNames.with_prefix(), 3))
    channels = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())["channels"]
    for topic, write in (("events", event), ("retry", onward("processing")), ("dlq", onward("failed"))):
        assert write.topic == f"billing.lago.{topic}"
        result = channels[write.topic]["messages"]["LagoEvent"]["headers"]["properties"]
        assert result.keys() == {name for name, _ in write.headers}
