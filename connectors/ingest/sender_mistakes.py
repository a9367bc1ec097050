"""Finds probable mistakes in an accepted call of a sender of its own: a misspelt name of a field that decides what is billed,
an empty customer or cost, a time that no call has, and a word that stands for no value.

Unknown fields are ignored. So without this the usage is held, or not billed, or billed in another month, and its sender
hears of nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import chain, islice
from re import compile as re_compile
from typing import Final, NamedTuple

from connectors.ingest.body_splitter import Element, members_of
from schemas.customer_id import UNATTRIBUTED
from schemas.moments import HOUR_US, parse_us
from schemas.wire import BREAKDOWN, INTEGRATION, LAGO, Call, Time
from streams.core.metering.cost_fields import amount_of
from streams.core.metering.normalise import FUTURE_US

_LIKENESS: Final = 0.8
#: Other names are not compared, and so are in no answer and no note: a name of this form holds no secret.
_NAME: Final = re_compile(r"[A-Za-z0-9_. -]+")
_LONGEST: Final = 40
_KNOWN: Final = frozenset({*Call.__struct_fields__, BREAKDOWN})
#: The objects of a call that may hold its cost.
_INNER: Final = ("properties", "data")
_AMOUNT: Final = re_compile(rb'"?\s*-?[0-9.]')
_EMPTY: Final = (b"null", b'""')
_YEAR_US: Final = 365 * 24 * HOUR_US

_COST: Final = ("cost_usd", "response_cost", "spend", "cost")
_CUSTOMER: Final = ("customer_id", "end_user", "external_customer_id")
#: For other fields of the same meaning, one of which is enough: what is so without any of them.
_OTHERWISE: Final = {
    _COST: "no other field holds a cost",
    _CUSTOMER: "no other field names the customer",
    ("timestamp", "startTime", "endTime"): "no other field says when the call ended",
    ("tokens_input", "prompt_tokens"): "no other field counts the input",
    ("tokens_output", "completion_tokens"): "no other field counts the output",
    ("currency",): "the cost is taken as US dollars",
    ("cache_hit",): "the call is taken as one that no cache answered",
}
_DETAILS: Final = tuple(names for names in _OTHERWISE if names not in (_COST, _CUSTOMER))
#: Names of other programs for a field, without any likeness.
_ALSO: Final = {
    "input_tokens": "tokens_input",
    "output_tokens": "tokens_output",
    **dict.fromkeys(("time", "ended_at", "created_at"), "timestamp"),
}
_OF_MONEY: Final = ("cost", "spend", "price", "usd")
#: Texts that programs write in place of a missing value.
_NO_VALUES: Final = frozenset({"undefined", "null", "none", "nan", "[object object]"})
_STATUSES: Final = ("success", "failure", "")


class Mistake(NamedTuple):
    """A probable mistake: the name of the field, and a sentence for the answer. Neither has a value of the call."""

    field: str
    sentence: str


def mistakes_in(element: Element, call: Call, shape: str, customer_id: str, received_at: int) -> list[Mistake]:
    """Return the probable mistakes in a call that `vet` accepts, at most one for each meaning of a field.

    Args:
        element: the call's JSON.
        customer_id: as `customer_of` returns it; only read of the integration payload.
        received_at: microseconds since 1970 UTC.
    """
    is_own = shape == INTEGRATION
    found = [*_times(call, shape, received_at), *(_values(call) if is_own else ())]
    has_cost = (
        any(amount not in (None, "") for amount in (call.cost_usd, call.response_cost, call.spend))
        or amount_of(call) is not None
    )
    if has_cost and not is_own:
        return found
    members = members_of(memoryview(element)) or {}
    if not has_cost:
        found += _first(_unknown(_amounts(members), _COST), _empty(members, _COST if is_own else ()))
    if is_own and customer_id == UNATTRIBUTED:
        found += _first(_unknown(members, _CUSTOMER), _empty(members, _CUSTOMER))
    if is_own and not _KNOWN.issuperset(members):
        for names in _DETAILS:
            for name in names:
                if getattr(call, name) is not None:
                    break
            else:
                found += _first(_unknown(members, names))
    return found


def _first(*found: Iterator[Mistake]) -> Iterator[Mistake]:
    return islice(chain(*found), 1)


def _unknown(given: Iterable[str], names: tuple[str, ...]) -> Iterator[Mistake]:
    """Yield the names of unknown fields that are like one of `names`."""
    for name in given:
        if name not in _KNOWN and len(name) <= _LONGEST and (meant := _meant(name, names)):
            yield Mistake(
                name, f"`{name}` is unknown and was ignored, and {_OTHERWISE[names]}: did you mean `{meant}`?"
            )


def _empty(members: Mapping[str, memoryview], names: tuple[str, ...]) -> Iterator[Mistake]:
    for name in names:
        if bytes(members.get(name, b"")) in _EMPTY:
            yield Mistake(name, f"`{name}` is empty, and {_OTHERWISE[names]}")


def _amounts(members: Mapping[str, memoryview]) -> Iterator[str]:
    """Yield the paths of the members that may be amounts, also of those in `properties` and `data`."""
    for name, value in members.items():
        if _AMOUNT.match(value):
            yield name
        elif name in _INNER:
            yield from (
                f"{name}.{inner}" for inner, amount in (members_of(value) or {}).items() if _AMOUNT.match(amount)
            )


@lru_cache(maxsize=4096)
def _meant(path: str, names: tuple[str, ...]) -> str:
    """Return the one of `names` that was probably meant by an unknown field, with the path before it; `""` = none."""
    if not _NAME.fullmatch(path):
        return ""
    before, dot, name = path.lower().rpartition(".")
    likeness, near = max((SequenceMatcher(None, name, one.lower()).ratio(), one) for one in names)
    if _ALSO.get(name) in names:
        near = _ALSO[name]
    elif likeness < _LIKENESS:
        if names is not _COST or not any(word in name for word in _OF_MONEY):
            return ""
        near = "precise_total_amount_cents" if "cent" in name else names[0]
    return f"{before}{dot}{near}"


def _times(call: Call, shape: str, received_at: int) -> Iterator[Mistake]:
    """Find times that no clock gives which is roughly right: a sender may have mistaken their unit."""
    if (event := call.cloud_event) is not None:
        told: Iterable[tuple[str, Time]] = (("time", event.time),)
    elif shape == LAGO:  # its other times are details, which may be unreadable
        told = (("timestamp", call.timestamp),)
    else:
        told = (("timestamp", call.timestamp), ("startTime", call.startTime), ("endTime", call.endTime))
    for name, moment in told:
        if moment is None or moment == "":
            continue
        if sentence := doubt_about(name, parse_us(moment), received_at):
            yield Mistake(name, sentence)


def doubt_about(name: str, at_us: int, now_us: int) -> str:
    """Return a sentence if the time in the field `name` is one that no clock gives which is roughly right; `""` = it is
    not. Both moments are microseconds since 1970 UTC.
    """
    if at_us > now_us + FUTURE_US:
        return f"`{name}` is later than now, so the usage is billed as of its arrival. Without an offset a time is UTC"
    if at_us < now_us - _YEAR_US:
        return f"`{name}` is more than a year ago: is its unit right? Such usage is billed only when it is known to be no repeat"
    return ""


def _values(call: Call) -> Iterator[Mistake]:
    """Find values of the integration payload that a program wrote in place of a missing one, and an unknown status."""
    for name in ("id", "request_id", "customer_id"):
        if isinstance(value := getattr(call, name), str) and value.strip().lower() in _NO_VALUES:
            so = "calls with one id and time are one call" if name != "customer_id" else "it names no customer"
            yield Mistake(name, f"`{name}` is a word for a missing value: {so}")
    if call.status is not None and call.status not in _STATUSES:
        yield Mistake("status", "`status` is neither `success` nor `failure`: the call is taken as a success")
