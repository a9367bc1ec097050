"""Current usage: the fees of the running period, computed from the events.

Source: `app/services/invoices/customer_usage_service.rb`, `app/services/fees/charge_service.rb`,
`app/services/charge_models/dynamic_service.rb`, `app/services/events/stores/postgres_store.rb`,
`app/serializers/v1/customers/` of lago-api.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from re import ASCII
from re import compile as re_compile
from typing import Any

import msgspec

from connectors.lago_sandbox.coercion import ruby_decimal, text
from connectors.lago_sandbox.instants import iso
from connectors.lago_sandbox.plans import SandboxCharge
from connectors.lago_sandbox.store import StoreKind
from connectors.lago_sandbox.stored_event import Event
from connectors.lago_sandbox.subscription import SandboxSubscription
from schemas.money import EXACT, ZERO, add, plain

_NUMERIC = re_compile(r"-?\d+(\.\d+)?", ASCII)
_PROPERTIES = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_ROUNDING = Context(prec=60, rounding=ROUND_HALF_UP)

#: Decimals of the currencies that do not have two.
_EXPONENTS = dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "RWF", "UGX", "VND", "XAF", "XOF", "XPF"), 0)
_EXPONENTS |= dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)


@dataclass(slots=True)
class ChargeFee:
    """One fee line: a charge, or one group of it."""

    units: Decimal = ZERO
    count: int = 0
    precise_cents: Decimal = ZERO

    def amount_cents(self, charge: SandboxCharge, currency: str) -> int:
        """Return the amount, rounded once: half up to the currency's smallest unit; never negative."""
        if charge.model == "dynamic":
            exact = self.precise_cents if self.units > 0 else ZERO
        else:
            exact = EXACT.multiply(charge.amount, self.units).scaleb(_EXPONENTS.get(currency, 2))
        return max(0, int(exact.quantize(Decimal(1), context=_ROUNDING)))


def current_usage(
    subscription: SandboxSubscription, events: Iterable[Event], store: StoreKind, now_us: int
) -> dict[str, Any]:
    """Lago's `customer_usage` of the period that contains `now_us`.

    Args:
        events: every copy that was sent for the subscription's external id.
    """
    start, end = subscription.charge_period(now_us)
    from_us = start // 1000 * 1000
    counted = [e for e in events if not e.superseded and from_us <= e.ts_us < end]
    currency = subscription.plan.currency
    charges = sorted(subscription.plan.charges, key=lambda charge: str(charge.metric.shown["name"]).lower())
    usage = [_charge_usage(charge, charge_fees(charge, counted, store), currency) for charge in charges]
    amount = sum(charge["amount_cents"] for charge in usage)
    return {
        "from_datetime": iso(start),
        "to_datetime": iso(end - 1),
        "issuing_date": (iso(end - 1) or "")[:10],
        "currency": currency,
        "amount_cents": amount,
        "total_amount_cents": amount,
        "taxes_amount_cents": 0,
        "lago_invoice_id": None,
        "charges_usage": usage,
    }


def charge_fees(
    charge: SandboxCharge, events: Iterable[Event], store: StoreKind
) -> dict[tuple[str | None, ...], ChargeFee]:
    """Sums by group. The Postgres store silently skips an event whose field is not plain digits."""
    fees: dict[tuple[str | None, ...], ChargeFee] = {}
    for event in events:
        if event.code != charge.metric.code:
            continue
        properties = _PROPERTIES.decode(event.properties)
        units = Decimal(1) if charge.metric.aggregation == "count_agg" else _numeric(properties, charge)
        if units is None and store == "postgres":
            continue
        fee = fees.setdefault(tuple(_shown(properties.get(key)) for key in charge.group_keys), ChargeFee())
        fee.units = add(fee.units, units or ZERO)
        fee.count += 1
        fee.precise_cents = add(fee.precise_cents, Decimal(event.cents or 0))
    return fees


def _charge_usage(
    charge: SandboxCharge, fees: dict[tuple[str | None, ...], ChargeFee], currency: str
) -> dict[str, Any]:
    groups = [
        {
            **_sums(charge, [fee], currency),
            "grouped_by": dict(zip(charge.group_keys, group, strict=True)),
            "filters": [],
        }
        for group, fee in fees.items()
    ]
    metric = charge.metric.shown
    return {
        **_sums(charge, list(fees.values()), currency),
        "amount_currency": currency,
        "charge": {name: charge.shown[name] for name in ("lago_id", "code", "charge_model", "invoice_display_name")},
        "billable_metric": {name: metric[name] for name in ("lago_id", "name", "code", "aggregation_type")},
        "filters": [],
        "grouped_usage": groups if charge.group_keys else [],
        "presentation_breakdowns": [],
    }


def _sums(charge: SandboxCharge, fees: list[ChargeFee], currency: str) -> dict[str, Any]:
    units = ZERO
    for fee in fees:
        units = add(units, max(fee.units, ZERO))
    return {
        "units": ruby_decimal(units),
        "total_aggregated_units": ruby_decimal(units),
        "events_count": sum(fee.count for fee in fees),
        "amount_cents": sum(fee.amount_cents(charge, currency) for fee in fees),
        "pricing_unit_details": None,
    }


def _numeric(properties: dict[str, Any], charge: SandboxCharge) -> Decimal | None:
    value_text = _shown(properties.get(charge.metric.field_name or ""))
    return Decimal(value_text) if value_text is not None and _NUMERIC.fullmatch(value_text) else None


def _shown(value: object) -> str | None:
    """Return the text of a property in a jsonb column: numbers as plain digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return plain(value) if isinstance(value, Decimal) else text(value)
