"""Billable metrics and plans: created once, and then what is there by that code is what counts."""

from connectors.lago.errors import LagoRejected
from connectors.lago.requests import NewMetric, NewPlan
from connectors.lago.response_types import Metric, Plan
from connectors.lago.transport import LagoTransport, safe


class CatalogueApi(LagoTransport):
    """`/billable_metrics` and `/plans`."""

    async def metric(self, code: str) -> Metric | None:
        """A billable metric; None where Lago knows none. Raises: LagoIntegrationError."""
        return await self._found("metric", f"/billable_metrics/{safe(code)}", "billable_metric", Metric)

    async def metrics(self) -> list[Metric]:
        """Every billable metric, newest first. Raises: LagoIntegrationError."""
        return await self._every("metrics", "/billable_metrics", "billable_metrics", Metric)

    async def create_metric(self, wanted: NewMetric) -> Metric:
        """The metric of this code: the one that is there, which may differ, or a new one. Raises: LagoIntegrationError."""
        try:
            return await self._one(
                "create_metric", "/billable_metrics", "billable_metric", Metric, verb="POST", body=wanted
            )
        except LagoRejected as error:
            known = await self.metric(wanted.code) if error.says("code", "value_already_exist") else None
            if known is None:
                raise
            return known

    async def plan(self, code: str) -> Plan | None:
        """A plan with its charges; None where Lago knows none. Raises: LagoIntegrationError."""
        return await self._found("plan", f"/plans/{safe(code)}", "plan", Plan)

    async def plans(self) -> list[Plan]:
        """Every plan with its charges, newest first. Raises: LagoIntegrationError."""
        return await self._every("plans", "/plans", "plans", Plan)

    async def create_plan(self, wanted: NewPlan) -> Plan:
        """The plan of this code: the one that is there, which may differ, or a new one.

        Raises:
            LagoRejected: code `billable_metrics_not_found` for a charge's metric.
            LagoIntegrationError
        """
        try:
            return await self._one("create_plan", "/plans", "plan", Plan, verb="POST", body=wanted)
        except LagoRejected as error:
            known = await self.plan(wanted.code) if error.says("code", "value_already_exist") else None
            if known is None:
                raise
            return known
