"""Requests about billable metrics and plans, by code. Existing ones are never changed."""

from functools import partial

from connectors.lago.requests import NewMetric, NewPlan
from connectors.lago.responses import Metric, Plan
from connectors.lago.transport import LagoTransport, safe


class CatalogueApi(LagoTransport):
    """`/billable_metrics` and `/plans`."""

    async def metric(self, code: str) -> Metric | None:
        """Return a billable metric; None if it does not exist. Raises: LagoIntegrationError."""
        return await self._get_or_none("metric", f"/billable_metrics/{safe(code)}", "billable_metric", Metric)

    async def metrics(self) -> list[Metric]:
        """Return all billable metrics, the newest first. Raises: LagoIntegrationError."""
        return await self._every("metrics", "/billable_metrics", "billable_metrics", Metric)

    async def create_metric(self, new_metric: NewMetric) -> Metric:
        """Create a metric, or return the existing one with this code, which may differ. Raises: LagoIntegrationError."""
        known = partial(self.metric, new_metric.code)
        return await self._created(
            "create_metric", "/billable_metrics", "billable_metric", Metric, new_metric, "code", known
        )

    async def plan(self, code: str) -> Plan | None:
        """Return a plan with its charges; None if it does not exist. Raises: LagoIntegrationError."""
        return await self._get_or_none("plan", f"/plans/{safe(code)}", "plan", Plan)

    async def plans(self) -> list[Plan]:
        """Return all plans with their charges, the newest first. Raises: LagoIntegrationError."""
        return await self._every("plans", "/plans", "plans", Plan)

    async def create_plan(self, new_plan: NewPlan) -> Plan:
        """Create a plan, or return the existing one with this code, which may differ.

        Raises:
            LagoRejected: code `billable_metrics_not_found`: the metric of a charge does not exist.
            LagoIntegrationError
        """
        known = partial(self.plan, new_plan.code)
        return await self._created("create_plan", "/plans", "plan", Plan, new_plan, "code", known)
