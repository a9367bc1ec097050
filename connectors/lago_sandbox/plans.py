"""Plans and their charges: created only; a repeated code is refused.

Source: `app/models/plan.rb`, `charge.rb`, `app/services/plans/create_service.rb`, `app/services/charges/validators/` of
lago-api.

The sandbox accepts charges of the models `dynamic` and `standard` over `sum_agg` and `count_agg`, without filters. Lago
accepts more; the sandbox refuses them, because it computes everything that it accepts.
"""

from dataclasses import dataclass
from decimal import Decimal
from re import compile as re_compile
from typing import Any

from connectors.lago_sandbox.coercion import text
from connectors.lago_sandbox.identifiers import Identifiers
from connectors.lago_sandbox.instants import iso
from connectors.lago_sandbox.metrics import SandboxMetric, SandboxMetrics, mandatory
from connectors.lago_sandbox.refusals import invalid, invalid_field, not_found
from streams.core.mapping.plan_intervals import MONTHS, PER_YEAR

_COMPUTED = ("count_agg", "sum_agg")
_AMOUNT = re_compile(r"\d+(\.\d+)?")
_CENTS = re_compile(r"\d{1,18}")
_CURRENCY = re_compile(r"[A-Z]{3}")


@dataclass(slots=True, frozen=True)
class SandboxCharge:
    """A charge of a plan; `amount`: of `standard`, per unit in major units of the currency."""

    metric: SandboxMetric
    model: str
    amount: Decimal
    group_keys: tuple[str, ...]
    shown: dict[str, Any]


@dataclass(slots=True, frozen=True)
class SandboxPlan:
    """A plan; `shown` is Lago's JSON of it."""

    code: str
    interval: str
    charge_interval: str
    currency: str
    amount_cents: int
    pay_in_advance: bool
    charges: tuple[SandboxCharge, ...]
    shown: dict[str, Any]

    @property
    def yearly_cents(self) -> int:
        """The subscription fee of a year; it decides which change of plan is an upgrade."""
        return self.amount_cents * PER_YEAR[self.interval]


class SandboxPlans:
    """Every plan of the organization, by code."""

    def __init__(self, identifiers: Identifiers, metrics: SandboxMetrics) -> None:
        self.all: dict[str, SandboxPlan] = {}
        self._identifiers = identifiers
        self._metrics = metrics

    def add(self, sent: dict[str, Any], now_us: int) -> SandboxPlan:
        """Create a plan with its charges.

        Raises:
            SandboxRefusal: 422; `value_already_exist` for a code in use; 404 for an unknown metric.
        """
        specs = [spec for spec in sent.get("charges") or [] if isinstance(spec, dict)]
        metrics = [self._metrics.by_id(text(spec.get("billable_metric_id"))) for spec in specs]
        if None in metrics:
            raise not_found("billable_metrics")
        self._check(sent)
        priced = [(spec, metric) for spec, metric in zip(specs, metrics, strict=True) if metric]
        for spec, metric in priced:
            _check_charge(spec, metric)
        charges: list[SandboxCharge] = []
        for spec, metric in priced:
            charges.append(self._charge(spec, metric, [c.shown["code"] for c in charges], now_us))
        code, interval, currency = str(sent["code"]), str(sent["interval"]), str(sent["amount_currency"])
        amount_cents = int(str(sent["amount_cents"]))
        monthly = bool(sent.get("bill_charges_monthly")) and interval in ("yearly", "semiannual")
        body = {
            "lago_id": self._identifiers.new("plan"),
            "name": sent.get("name"),
            "invoice_display_name": sent.get("invoice_display_name"),
            "created_at": iso(now_us),
            "code": code,
            "interval": interval,
            "description": sent.get("description"),
            "amount_cents": amount_cents,
            "amount_currency": currency,
            "trial_period": sent.get("trial_period"),
            "pay_in_advance": sent["pay_in_advance"],
            "bill_charges_monthly": monthly or None,
            **dict.fromkeys(("customers_count", "active_subscriptions_count", "draft_invoices_count"), 0),
            "parent_id": None,
            "pending_deletion": False,
            "charges": [charge.shown for charge in charges],
            **dict.fromkeys(("fixed_charges", "usage_thresholds", "taxes", "entitlements"), ()),
        }
        charge_interval = "monthly" if monthly else interval
        in_advance = bool(sent["pay_in_advance"])
        plan = SandboxPlan(code, interval, charge_interval, currency, amount_cents, in_advance, tuple(charges), body)
        return self.all.setdefault(code, plan)

    def _check(self, sent: dict[str, Any]) -> None:
        errors = mandatory(sent, "name", "code", "amount_cents")
        if sent.get("interval") not in MONTHS:
            errors["interval"] = ["value_is_invalid"]
        if not _CURRENCY.fullmatch(text(sent.get("amount_currency")) or ""):
            errors["amount_currency"] = ["value_is_invalid"]
        if not _CENTS.fullmatch(text(sent.get("amount_cents")) or ""):
            errors.setdefault("amount_cents", ["value_is_invalid"])
        if not isinstance(sent.get("pay_in_advance"), bool):
            errors["pay_in_advance"] = ["value_is_invalid"]
        if text(sent.get("code")) in self.all:
            errors["code"] = ["value_already_exist"]
        if errors:
            raise invalid(errors)

    def _charge(self, spec: dict[str, Any], metric: SandboxMetric, taken: list[str], now_us: int) -> SandboxCharge:
        properties = spec.get("properties") or {}
        codes = [metric.code, *(f"{metric.code}_{n}" for n in range(2, len(taken) + 3))]
        body = {
            "lago_id": self._identifiers.new("charge"),
            "lago_billable_metric_id": metric.shown["lago_id"],
            "code": text(spec.get("code")) or next(code for code in codes if code not in taken),
            "invoice_display_name": spec.get("invoice_display_name"),
            "billable_metric_code": metric.code,
            "created_at": iso(now_us),
            "charge_model": spec["charge_model"],
            "invoiceable": True,
            "regroup_paid_fees": None,
            "pay_in_advance": bool(spec.get("pay_in_advance")),
            "prorated": bool(spec.get("prorated")),
            "min_amount_cents": 0,
            "properties": properties,
            "filters": [],
            "taxes": [],
        }
        amount = Decimal(properties.get("amount", 0)) if spec["charge_model"] == "standard" else Decimal(0)
        groups = tuple(properties.get("pricing_group_keys") or properties.get("grouped_by") or ())
        return SandboxCharge(metric, spec["charge_model"], amount, groups, body)


def _check_charge(spec: dict[str, Any], metric: SandboxMetric) -> None:
    model, properties = spec.get("charge_model"), spec.get("properties") or {}
    if model not in ("dynamic", "standard"):
        raise invalid_field("charge_model", "value_is_invalid")
    if metric.aggregation not in _COMPUTED or (model == "dynamic" and metric.aggregation != "sum_agg"):
        raise invalid_field("charge_model", "invalid_aggregation_type_or_charge_model")
    if spec.get("filters"):
        raise invalid_field("filters", "value_is_invalid")
    amount = properties.get("amount")
    if model == "standard" and not (isinstance(amount, str) and _AMOUNT.fullmatch(amount)):
        raise invalid_field("properties", "invalid_amount")
    groups = properties.get("pricing_group_keys") or properties.get("grouped_by") or []
    if not isinstance(groups, list) or not all(isinstance(key, str) and key for key in groups):
        raise invalid_field("properties", "invalid_type")
