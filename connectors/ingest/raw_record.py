"""Turns an element into the record that is stored. The allow-list removes prompts and answers before anything is stored.

Almost all elements are valid, and are decoded once, by types. An element that the types or the rules refuse is read again
field by field.
"""

from re import compile as re_compile
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw

from connectors.ingest.background_responses import with_answer_id
from connectors.ingest.body_splitter import Element, WrappedCalls, calls_in, wrapped_in
from connectors.ingest.call_context import ContextFields, Taken
from connectors.ingest.carried_costs import with_carried, with_costs_of_metadata
from connectors.ingest.cloud_events import call_in
from connectors.ingest.key_hashing import without_secrets
from connectors.ingest.lenient_json import tree_of, with_data
from connectors.ingest.rejection_record import MAX_RECORD_BYTES, InvalidElement
from connectors.ingest.sender_mistakes import Mistake, mistakes_in
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected
from schemas.money import AMOUNT_FORM
from schemas.reasons import TOO_LARGE
from schemas.wire import (
    BACKFILL,
    CLOUDEVENT,
    ENVELOPE_VERSION,
    EVENT_SIGNS,
    FLAT,
    INTEGRATION,
    RULES,
    SLP,
    WRAPPERS,
    Call,
    CloudEvent,
    StoredCloudEvent,
)
from streams.core.metering.call_kinds import READS
from streams.core.metering.call_rejections import NOT_A_CALL, vet
from streams.core.metering.cost_fields import claims_of
from streams.core.metering.customer_key import customer_of, matters_less, shape_of
from streams.core.metering.json_budget import Budget
from streams.core.metering.token_counts import count_of
from streams.core.metering.tolerant_reader import WRONG_TYPE, PartialCall


class _CallEnvelope(msgspec.Struct, omit_defaults=True, gc=False):
    """A RawRecord with the call as it is stored."""

    v: int
    source: str
    shape: str
    received_at: int
    id_kind: str
    call: Raw
    rules: int
    note: str = ""
    context: Raw | msgspec.UnsetType = UNSET
    power_level: str = ""


_stored_event = msgspec.json.Decoder(StoredCloudEvent).decode
_call = msgspec.json.Decoder(Call).decode
_encode = msgspec.json.Encoder().encode
_NOTHING_MORE = ContextFields()
_NOTHING = (b"{}", b'{"cloud_event":{}}')
#: Besides `id` and `time`, one of these makes an object a CloudEvent.
_ATTRIBUTES = ("source", "subject", "data", *EVENT_SIGNS)
_NUL = b"\\u0000"
_AMOUNTS = ("spend", "response_cost", "cost_usd", "cost")
#: As JSON: a number, which the types check; a decimal number in quotes; null.
_AMOUNT = re_compile(rb'[-0-9][^"]*|"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"|null')


class Arrival(NamedTuple):
    """How the elements arrived, and which parts of them are read.

    Fields:
        received_at: microseconds since 1970 UTC.
        fields: `CUSTOMER_ID_FIELDS`.
        source: the origin in the record.
        kept: which context of the calls is kept.
    """

    received_at: int
    fields: tuple[str, ...]
    source: str = "webhook"
    kept: ContextFields = _NOTHING_MORE


def strip(
    element: Element, otherwise: str, received_at: int, fields: tuple[str, ...], source: str = "webhook"
) -> tuple[str, bytes] | None:
    """Call `strip_arrived` for a single element, without context."""
    return strip_arrived(element, otherwise, Arrival(received_at, fields, source))


def strip_arrived(element: Element, otherwise: str, arrival: Arrival) -> tuple[str, bytes] | None:
    """Return the Kafka key (normalised customer id) and the value (JSON of `RawRecord`) of one element; see
    `strip_noticing`.
    """
    found = strip_noticing(element, otherwise, arrival)
    return None if found is None else found[:2]


def strip_noticing(
    element: Element, otherwise: str, arrival: Arrival, budget: Budget | None = None
) -> tuple[str, bytes, str] | None:
    """Return the Kafka key (normalised customer id) and the value (JSON of `RawRecord`) of one element; and what was left
    out of it: paths of fields with a comma between them, or a sentence; `""` = nothing.

    Args:
        otherwise: the shape of an element whose fields do not show it.
        budget: the limit for elements that are read field by field; None = the limit of a body with only this element.

    Returns:
        None for a `null` element, which is not a call.

    Raises:
        InvalidElement: the element goes to the rejected topic.
        WrappedCalls: it contains calls and is not one.
    """
    if arrival.source == BACKFILL:
        element = with_costs_of_metadata(bytes(memoryview(element)))
    try:
        return *strip_sound(element, otherwise, arrival), ""
    except Odd as odd:
        element = odd.element
        careful = _carefully(element, odd.shape, arrival, budget or Budget())
    if careful is None:
        return None
    text, call, taken, shape, note, left_out = careful
    return *_stored(element, arrival, text, call, taken, shape, note), left_out


class Odd(Exception):  # control flow, not an error
    """The types or the rules refuse an element, so it must be read field by field.

    Attributes:
        element: the element, or the call in its event.
        shape: of it, if its fields do not show it.
    """

    def __init__(self, element: Element, shape: str) -> None:
        super().__init__(shape)
        self.element = element
        self.shape = shape


def strip_sound(element: Element, otherwise: str, arrival: Arrival) -> tuple[str, bytes]:
    """Do the same as `strip_arrived` for a valid element. Raises: Odd: it may be invalid; InvalidElement, WrappedCalls:
    see `strip_arrived`.
    """
    if otherwise == CLOUDEVENT and (inside := call_in(element)) is not None:
        element, otherwise = inside, FLAT
    try:
        text, call, taken = _quickly(element, otherwise, arrival.kept)
        shape = shape_of(call, otherwise)
        vet(call, shape)
        if shape == INTEGRATION:  # Only senders of their own use it; the answer names details that cannot be read
            for count in (call.tokens_input, call.tokens_output, call.total_tokens):
                count_of(count)
        if _mistakes(element, call, shape, arrival):
            raise Odd(element, otherwise)
    except _OtherShape as other:
        return strip_sound(element, other.shape, arrival)
    except (*UNDECODABLE, ArithmeticError, Rejected):
        raise Odd(element, otherwise) from None
    return _stored(element, arrival, text, call, taken, shape, "")


def _stored(
    element: Element, arrival: Arrival, text: bytes, call: Call, taken: Taken, shape: str, note: str
) -> tuple[str, bytes]:
    received_at, fields, source, kept = arrival
    if (secretless := without_secrets(text, call)) is not None:
        text, call = secretless
    if call.call_type in READS:
        text = with_answer_id(text, element)
    if taken is not None and (costs := taken[0]) is not None and costs.additional_costs is not UNSET:
        text = with_carried(text, costs)
    customer_id, id_kind = customer_of(shape, call, fields)
    raw: Raw | msgspec.UnsetType = UNSET
    if taken is not None or (call.metadata is not None and call.metadata.usage_object is not None):
        context = kept.context(taken, call)
        if context is not None:
            raw = Raw(context)
    level = "" if taken is None else taken[-1]
    value = _encode(
        _CallEnvelope(ENVELOPE_VERSION, source, shape, received_at, id_kind, Raw(text), RULES, note, raw, level)
    )
    if len(value) > MAX_RECORD_BYTES:
        raise InvalidElement(TOO_LARGE, f"the call has more than {MAX_RECORD_BYTES} bytes, without prompts")
    return customer_id, value


def _mistakes(element: Element, call: Call, shape: str, arrival: Arrival) -> list[Mistake]:
    """Return the probable mistakes of a sender, which the answer names. Rows of LiteLLM's table have none, and may be old."""
    if shape == SLP or arrival.source == BACKFILL:
        return []
    customer_id = customer_of(shape, call, arrival.fields)[0] if shape == INTEGRATION else ""
    return mistakes_in(element, call, shape, customer_id, arrival.received_at)


class _OtherShape(Exception):  # control flow, not an error
    """An element on a route for calls is a CloudEvent, or an element on the route for CloudEvents is a call."""

    def __init__(self, shape: str) -> None:
        super().__init__(shape)
        self.shape = shape


def _quickly(element: Element, otherwise: str, kept: ContextFields) -> tuple[bytes, Call, Taken]:
    """Return the stored text, the same as a call, and the fields of its context.

    Raises:
        msgspec.DecodeError, Rejected: it is not valid, or may not be.
        WrappedCalls, _OtherShape.
    """
    if otherwise == CLOUDEVENT:
        event: Any = _stored_event(element)
        if event is None:
            raise Rejected(NOT_A_CALL)
        _tell_event(event)
        if (data := event.data) is not UNSET and data is not None:
            for name in (*_AMOUNTS, "precise_total_amount_cents"):
                _check_amount(getattr(data, name))
        text = b'{"cloud_event":%b}' % _encode(event)
        taken: Taken = None
    else:
        stored: Any = kept.read(element)
        if stored.specversion is not UNSET:
            if bytes(stored.specversion) != b"null":
                raise _OtherShape(CLOUDEVENT)
            stored.specversion = UNSET
        if not (
            stored.events is UNSET
            and stored.event is UNSET
            and stored.records is UNSET
            and stored.record is UNSET
            and stored.data is UNSET
            and stored.calls is UNSET
            and stored.logs is UNSET
            and stored.usage is UNSET
        ):
            _tell_wrapper(element, stored)
            if _is_envelope(_call(_encode(stored))):
                raise Rejected(NOT_A_CALL)
        taken = kept.take(stored, element)
        text = _encode(stored)
        _check_amounts(stored)
    if (b"\\" in text and _NUL in text) or text in _NOTHING:
        raise Rejected(NOT_A_CALL)
    call = _call(text)
    if call.model is None and otherwise != CLOUDEVENT and _is_envelope(call):
        raise Rejected(NOT_A_CALL)
    return text, call, taken


def _tell_event(event: Any) -> None:
    """Remove the fields that only mark a CloudEvent. Raises: _OtherShape; Rejected: its data is in base64."""
    if all(getattr(event, name) is UNSET for name in _ATTRIBUTES):
        raise _OtherShape(FLAT)
    if event.data_base64 is not UNSET:
        raise Rejected(WRONG_TYPE)
    for name in EVENT_SIGNS:
        setattr(event, name, UNSET)


def _tell_wrapper(element: Element, stored: Any) -> None:
    """Remove fields that only have the name of a wrapper. Raises: WrappedCalls: one of them contains calls."""
    if (inner := wrapped_in(element)) is not None:
        raise WrappedCalls(inner)
    for name in WRAPPERS:
        setattr(stored, name, UNSET)


#: Fields of a call besides ids. An element without any of them, but with something like a wrapper, is an envelope.
_OF_A_CALL = (
    *("call_type", "model", "model_group", "prompt_tokens", "completion_tokens", "total_tokens", "tokens_input"),
    *("tokens_output", "response_cost", "spend", "cost_usd", "cost", "precise_total_amount_cents", "properties"),
)


def _is_envelope(call: Call) -> bool:
    return all(getattr(call, name) is None for name in _OF_A_CALL)


def _check_amounts(stored: Any) -> None:
    """Check that amounts in quotes are decimal numbers, because the types accept more. Raises: Rejected."""
    if (raw := stored.spend) is not UNSET and not _AMOUNT.fullmatch(raw):
        raise _no_amount()
    if (raw := stored.response_cost) is not UNSET and not _AMOUNT.fullmatch(raw):
        raise _no_amount()
    if (
        stored.cost_usd is UNSET
        and stored.cost is UNSET
        and stored.precise_total_amount_cents is UNSET
        and stored.properties is UNSET
    ):
        return
    for raw in (stored.cost_usd, stored.cost, stored.precise_total_amount_cents):
        _check_amount(raw)
    if (properties := stored.properties) is not UNSET and properties is not None:
        for name in _AMOUNTS:
            _check_amount(getattr(properties, name))


def _check_amount(raw: Any) -> None:
    if raw is not UNSET and not _AMOUNT.fullmatch(raw):
        raise _no_amount()


def _no_amount() -> Rejected:
    return Rejected("bad_cost", f"expected {AMOUNT_FORM}")


def _carefully(
    element: Element, otherwise: str, arrival: Arrival, budget: Budget
) -> tuple[bytes, Call, Taken, str, str, str] | None:
    """Text, call, context, shape and note of an element that is read field by field, and what was left out of it, as
    `strip_noticing` returns it; None for `null`.

    Raises:
        InvalidElement: it has the valid rest of the call, and the names of the invalid fields, never their values.
        WrappedCalls: it contains calls.
    """
    fields = arrival.fields
    data = bytes(memoryview(element))
    if (inner := wrapped_in(data)) is not None:
        raise WrappedCalls(inner)
    tree = tree_of(data, budget)
    if tree is None:
        return None
    if tree.get("specversion") is not None or (otherwise == CLOUDEVENT and not tree.keys().isdisjoint(_ATTRIBUTES)):
        otherwise = CLOUDEVENT
        soft = PartialCall(with_data(tree), CloudEvent)
        text = b'{"cloud_event":%b}' % _encode(soft.kept)
    else:
        otherwise = FLAT if otherwise == CLOUDEVENT else otherwise
        soft = PartialCall(tree, Call)
        text = _encode(soft.kept)
    call = _call(text)
    if otherwise != CLOUDEVENT and _is_envelope(call) and (inner := calls_in(data)) is not None:
        raise WrappedCalls(inner)
    if text in _NOTHING and not soft.bad:
        raise InvalidElement(NOT_A_CALL, "no field of a call was found in the object")
    if otherwise != CLOUDEVENT and not tree.keys().isdisjoint(WRAPPERS) and _is_envelope(call) and not soft.bad:
        raise InvalidElement(NOT_A_CALL, "no call was found in the envelope", call=text)
    shape = shape_of(call, otherwise)
    customer = customer_of(shape, call, fields)
    wrong = [path for path in soft.bad if not matters_less(path, customer[1], fields)]
    safe, _ = without_secrets(text, call) or (text, call)
    if wrong:
        raise InvalidElement(soft.reason(), ", ".join(wrong), call=safe)
    try:
        if (lost := soft.lost_counts()) and not claims_of(call):
            # Tokens are all that a rate card could bill: without them it would pass for a call that costs nothing.
            raise Rejected(WRONG_TYPE, ", ".join(lost))
        vet(call, shape)
    except Rejected as refusal:
        raise InvalidElement(refusal.reason, refusal.detail, call=safe) from None
    except ArithmeticError:
        raise InvalidElement("bad_cost", "the cost has too many digits", call=safe) from None
    mistakes = _mistakes(data, call, shape, arrival)
    left_out = "; ".join([*([", ".join(soft.left_out)] if soft.left_out else []), *(one.sentence for one in mistakes)])
    soft.odd += [path for path in soft.bad if path not in wrong]
    soft.odd += [one.field for one in mistakes]
    return text, call, arrival.kept.of_tree(tree, of_table=arrival.source == BACKFILL), shape, soft.note(), left_out


def customer_of_rest(refused: InvalidElement, otherwise: str, fields: tuple[str, ...]) -> str | None:
    """Return the customer id in the valid rest of a refused element; None if there is no rest."""
    if refused.call is None:
        return None
    call = _call(refused.call)
    shape = (
        CLOUDEVENT if call.cloud_event is not None else shape_of(call, FLAT if otherwise == CLOUDEVENT else otherwise)
    )
    return customer_of(shape, call, fields)[0]
