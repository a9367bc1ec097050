"""The fuzz targets: functions of bytes that raise nothing, for any bytes.

What may be refused is refused by an exception of the product's own, which a target catches. Everything else that leaves
a target is a fault.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Final

import msgspec

from connectors.credits.stripe_events import read_event
from connectors.credits.stripe_signature import check_signature
from connectors.http.content_encoding import STEP, Unpacker
from connectors.http.problem import Problem
from connectors.ingest.body_splitter import split
from connectors.ingest.cloud_events import event_of
from connectors.ingest.lenient_json import tree_of, with_data
from connectors.ingest.rejection_record import MAX_RECORD_BYTES, InvalidElement
from connectors.ingest.sender_signatures import Secret, signed_by
from connectors.ingest.store import ElementStore
from connectors.kafka.producer import Record
from connectors.operations.csv_table import DELIMITERS, CsvTable
from schemas.customer_id import normalise_customer_id
from schemas.decoding import Unreadable, decoder
from schemas.errors import Rejected, Unavailable
from schemas.moments import MAX_US, parse_us
from schemas.money import parse_amount
from schemas.records import Rejection
from schemas.wire import CLOUDEVENT, FLAT, INTEGRATION, LAGO, SLP, Call, CloudEvent, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.json_budget import Budget
from streams.core.metering.normalise import normalise
from streams.core.metering.tolerant_reader import PartialCall
from streams.core.payments.payment import Offer, Payment, credits_due, merged_payment
from tests.fuzz.stored import NOW_US, stored

Target = Callable[[bytes], None]

_SHAPES: Final = (FLAT, SLP, INTEGRATION, LAGO, CLOUDEVENT)
_UNIT: Final = Decimal("0.0000000001")
_raw, _rejection = decoder(RawRecord), decoder(Rejection)
_SECRETS: Final = [Secret.of("a-secret"), Secret.of("whsec_YS1zZWNyZXQ=")]


_PAID, _OFFER = Payment(1000, "usd"), Offer(Decimal(12), 1000, "usd")

_loop = asyncio.new_event_loop()


class _Taken:
    """A sender that keeps its records."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        self.records += records
        return {}


def body(data: bytes) -> None:
    """A complete body, its first byte the route: each element is stored once, as a call that the meter can judge or as
    a rejection.
    """
    taken = _Taken()
    store = ElementStore(taken, "raw", "rejected", CUSTOMER_ID_FIELDS, lambda: NOW_US)
    shape = _SHAPES[data[0] % len(_SHAPES)] if data else FLAT
    try:
        outcome = _loop.run_until_complete(store.keep(data[1:], shape))
    except (InvalidElement, Unavailable):
        return
    topics = [record[0] for record in taken.records]
    assert topics.count("raw") == outcome.accepted
    # Elements without anything of a call share one rejection, beyond a hundred of them.
    assert min(100, len(outcome.rejected)) <= topics.count("rejected") <= len(outcome.rejected)
    for topic, key, value, _ in taken.records:
        assert len(value) <= 2 * MAX_RECORD_BYTES
        if topic == "raw":
            _judged(_raw(value), str(key))
        else:
            _rejection(value)


def _judged(record: RawRecord, customer: str) -> None:
    try:
        usage = normalise(record, customer, _UNIT)
    except Rejected:
        return
    assert usage.cost is None or usage.cost.is_finite()
    assert 0 <= usage.end_us < MAX_US


def normaliser(data: bytes) -> None:
    """A stored raw record from any program: the meter's reading of it."""
    try:
        record = _raw(data)
    except Unreadable:
        return
    _judged(record, "acme")


def splitter(data: bytes) -> None:
    """The elements are in the body, one after the other, and together not larger than it."""
    try:
        elements = split(data)
    except InvalidElement:
        return
    assert sum(len(memoryview(element)) for element in elements) <= len(data) + len(elements)


def tolerant(data: bytes) -> None:
    """JSON as Python writes it, field by field."""
    try:
        tree = tree_of(data, Budget())
    except InvalidElement:
        return
    if tree is not None:
        for of in (Call, CloudEvent):
            soft = PartialCall(with_data(tree), of)
            soft.note()


def words(data: bytes) -> None:
    """Each small normaliser with one text."""
    text = data.decode("utf-8", "replace")
    for read in (parse_us, parse_amount):
        with suppress(Rejected):
            read(text)
    normalise_customer_id(text)


def csv(data: bytes) -> None:
    """A CSV file, its first byte the delimiter: each line is in a row, refused or not."""
    table = CsvTable(None, list(DELIMITERS)[data[0] % len(DELIMITERS)] if data else "")
    try:
        for number, line in enumerate(data[1:].splitlines(keepends=True), 1):
            list(table.feed(number, line))
        list(table.end())
    except Rejected:
        return


def packed(data: bytes) -> None:
    """A compressed body, its first byte the encoding: decompressed in steps, and no step is larger than allowed."""
    unpacker = Unpacker(("gzip", "deflate", "x-gzip", "")[data[0] % 4] if data else "gzip")
    created = 0
    try:
        for piece in unpacker.pieces(data[1:]):
            assert len(piece) <= max(STEP, len(data))
            created += len(piece)
            if created > 64 * STEP:
                return
        unpacker.end()
    except Problem:
        return


def headers(data: bytes) -> None:
    """Header values of signatures and of CloudEvents in binary mode: no request is accepted, nothing is raised."""
    values = [part.decode("utf-8", "surrogateescape") for part in data.split(b"\n", 4)]
    names = ("X-Webhook-Signature", "webhook-signature", "webhook-id", "webhook-timestamp", "ce-id")
    result = dict(zip(names, values, strict=False))
    assert signed_by(result, b"{}", _SECRETS) is None
    event_of(result | {"ce-specversion": values[0]}, data)


def payment(data: bytes) -> None:
    """A Stripe webhook with its signature in the first line: it is not accepted, and its payment is worth no more than
    the offer.
    """
    header, _, result = data.partition(b"\n")
    with suppress(Rejected):
        check_signature(header.decode("utf-8", "surrogateescape"), result, ["whsec_secret"])
        raise AssertionError("this signature is not valid")
    with suppress(Rejected):
        fact = read_event(result).fact or Payment()
        assert 0 <= credits_due(merged_payment(_PAID, fact), _OFFER) <= _OFFER.credits
        assert msgspec.json.decode(msgspec.json.encode(fact), type=Payment) == fact


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (body, splitter, tolerant, stored, normaliser, words, csv, packed, headers, payment)
}
