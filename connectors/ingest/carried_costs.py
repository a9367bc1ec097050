"""Reads which part of a call's cost its failed attempts have cost. LiteLLM 1.110 states it in `cost_breakdown.additional_costs`.

The attempts are reported, too, so the meter must know the part (streams/core/metering/failed_attempts.py).
"""

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET

from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected
from schemas.money import ZERO, add, check_cost, plain
from schemas.rounding import MOST_COST_DECIMALS, quantum
from schemas.wire import CARRIED

_AdditionalCosts = msgspec.defstruct("_AdditionalCosts", [(name, Decimal | None, None) for name in CARRIED], gc=False)
_read = msgspec.json.Decoder(_AdditionalCosts).decode
_NULL = msgspec.Raw(b"null")
_LEAST = quantum(2 * MOST_COST_DECIMALS)


class _Metadata(msgspec.Struct, gc=False):
    cost_breakdown: msgspec.Raw = _NULL


class _Row(msgspec.Struct, gc=False):
    cost_breakdown: msgspec.Raw = _NULL
    metadata: _Metadata | None = None


_read_row = msgspec.json.Decoder(_Row).decode


def with_costs_of_metadata(element: bytes) -> bytes:
    """Return a row of LiteLLM's table with the breakdown of its cost beside its metadata, as callbacks have it.

    Metadata in another form than an object, such as text, are left to the reader field by field.
    """
    if b"cost_breakdown" not in element:
        return element
    try:
        row = _read_row(element)
    except UNDECODABLE:
        return element
    inner = b"null" if row.metadata is None else bytes(row.metadata.cost_breakdown)
    if bytes(row.cost_breakdown) != b"null" or not inner.startswith(b"{"):
        return element
    # Of two members with one name the last one counts, so it replaces a null.
    return b'%b,"cost_breakdown":%b}' % (element.rstrip()[:-1], inner)


def with_carried(text: bytes, costs: Any) -> bytes:
    """Return the stored JSON of a call, with `carried_cost` if a part of its cost is carried.

    Args:
        costs: `StoredCosts`. The additional costs are removed, because they are not stored.
    """
    raw, costs.additional_costs = costs.additional_costs, UNSET
    carried = _carried_in(raw)
    return b'%b,"carried_cost":"%b"}' % (text[:-1], plain(carried).encode()) if carried else text


def _carried_in(raw: bytes) -> Decimal:
    """Return the sum of the carried costs, dollars; 0 if there are none, or one of them is no amount. An amount that is
    far below the last decimal of a cost counts as 0: written out, 1e-999999 is longer than a record may be.
    """
    carried = ZERO
    try:
        members = _read(raw)
        for amount in (getattr(members, name) for name in CARRIED):
            if amount is not None:
                check_cost(amount)
                carried = add(carried, amount)
    except (*UNDECODABLE, Rejected, ArithmeticError):
        return ZERO
    return carried if carried >= _LEAST else ZERO
