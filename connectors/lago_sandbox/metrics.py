"""Billable metrics: created only; a repeated code is refused.

Source: `app/models/billable_metric.rb`, `app/services/billable_metrics/create_service.rb` of lago-api.

Lago also accepts expressions and rounding of units. The sandbox refuses them, because it computes everything that it
accepts.
"""

from dataclasses import dataclass
from typing import Any

from connectors.lago_sandbox.coercion import blank, text
from connectors.lago_sandbox.identifiers import Identifiers
from connectors.lago_sandbox.instants import iso
from connectors.lago_sandbox.refusals import invalid

AGGREGATIONS = ("count_agg", "sum_agg", "max_agg", "unique_count_agg", "weighted_sum_agg", "latest_agg")


@dataclass(slots=True, frozen=True)
class SandboxMetric:
    """A billable metric; `shown` is Lago's JSON of it."""

    code: str
    aggregation: str
    field_name: str | None
    shown: dict[str, Any]


class SandboxMetrics:
    """Every metric of the organization, by code."""

    def __init__(self, identifiers: Identifiers) -> None:
        self.all: dict[str, SandboxMetric] = {}
        self._identifiers = identifiers

    def add(self, sent: dict[str, Any], now_us: int) -> SandboxMetric:
        """Create a metric.

        Raises:
            SandboxRefusal: 422; `value_already_exist` for a code in use.
        """
        code, aggregation = text(sent.get("code")), text(sent.get("aggregation_type"))
        field_name = None if aggregation == "count_agg" else text(sent.get("field_name"))
        errors = mandatory(sent, "name", "code")
        if aggregation not in AGGREGATIONS:
            errors["aggregation_type"] = ["value_is_invalid"]
        elif aggregation != "count_agg" and blank(field_name):
            errors["field_name"] = ["value_is_mandatory"]
        if code in self.all:
            errors["code"] = ["value_already_exist"]
        if sent.get("expression"):
            errors["expression"] = ["invalid_expression"]
        if sent.get("rounding_function"):
            errors["rounding_function"] = ["value_is_invalid"]
        if errors or code is None or aggregation is None:
            raise invalid(errors)
        body = {
            "lago_id": self._identifiers.new("billable_metric"),
            "name": sent.get("name"),
            "code": code,
            "description": sent.get("description"),
            "aggregation_type": aggregation,
            "weighted_interval": sent.get("weighted_interval"),
            "recurring": bool(sent.get("recurring")),
            "rounding_function": None,
            "rounding_precision": None,
            "created_at": iso(now_us),
            "field_name": field_name,
            "expression": None,
            "filters": sent.get("filters") or [],
        }
        return self.all.setdefault(code, SandboxMetric(code, aggregation, field_name, body))

    def by_id(self, lago_id: str | None) -> SandboxMetric | None:
        """Return the metric with this UUID; None where there is none."""
        return next((metric for metric in self.all.values() if metric.shown["lago_id"] == lago_id), None)


def mandatory(sent: dict[str, Any], *names: str) -> dict[str, list[str]]:
    """Return an error for each of these fields that is absent or blank."""
    return {name: ["value_is_mandatory"] for name in names if blank(text(sent.get(name)))}
