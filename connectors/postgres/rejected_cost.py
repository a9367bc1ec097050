"""Reads the amount of a rejected call from what is kept of it: the same in lists, sums, audit lines and the tables.

The rules may have refused this very amount, so the meter's reading of the call has none.
"""

from decimal import Decimal, DecimalException
from typing import Final

import msgspec

from schemas.decoding import UNDECODABLE, decoder
from schemas.records import Rejection
from schemas.rounding import MOST_COST_DECIMALS, quantise, quantum
from schemas.wire import Call, RawRecord
from streams.core.metering.cost_fields import claims_of, foreign_currency

#: A rejected call may name any cost; only a plausible one counts, in dollars.
_LIMIT: Final = Decimal(10**12)
_UNIT: Final = quantum(MOST_COST_DECIMALS)
_decode_raw = decoder(RawRecord)
_decode_call = decoder(Call)


def cost_of(refused: Rejection) -> Decimal | None:
    """Return the cost in the first of the fields that the meter reads, dollars, rounded to `MOST_COST_DECIMALS`; None = no
    field has a plausible one, or it is in another currency.
    """
    if refused.call is msgspec.UNSET:
        return None
    try:
        # The meter stores the whole envelope, the ingress only the element.
        call = _decode_raw(refused.call).call if refused.stage == "meter" else _decode_call(refused.call)
        claims = [] if foreign_currency(call) else claims_of(call)
    except (*UNDECODABLE, DecimalException):
        return None
    return next((quantise(cost, _UNIT) for cost in claims if cost.is_finite() and cost.copy_abs() < _LIMIT), None)
