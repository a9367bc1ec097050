"""All Prometheus metrics of a process, with their types and meanings.

A metric is defined in the class of its subject, in `SUBJECT_metrics.py` beside this file; this module only composes them.
Every process exports all metrics; metrics of other roles stay zero. No label contains a customer's id. Floats are for
dashboards only: the ledgers count in Decimal (streams/core/metering/ledger_state.py).
"""

from itertools import combinations

from prometheus_client import CollectorRegistry, Info

from connectors.telemetry.canary_metrics import CanaryMetrics
from connectors.telemetry.counted_by_role import watch_counts
from connectors.telemetry.credit_metrics import CreditMetrics
from connectors.telemetry.delivery_metrics import DeliveryMetrics
from connectors.telemetry.held_metrics import HeldMetrics
from connectors.telemetry.held_usage import HeldUsageMonitor
from connectors.telemetry.ingress_metrics import IngressMetrics
from connectors.telemetry.mapping_metrics import MappingMetrics
from connectors.telemetry.metering_metrics import MeteringMetrics
from connectors.telemetry.metric_definitions import make_all
from connectors.telemetry.organization_metrics import OrganizationMetrics
from connectors.telemetry.outgoing_webhook_metrics import OutgoingWebhookMetrics
from connectors.telemetry.postgres_metrics import PostgresMetrics
from connectors.telemetry.process_metrics import ProcessMetrics
from connectors.telemetry.provider_metrics import ProviderMetrics
from connectors.telemetry.queue_metrics import QueueMetrics
from connectors.telemetry.unbilled_usage import UnbilledUsageMonitor
from streams.core.metering.duplicate_routes import ROUTES


class Metrics(
    IngressMetrics,
    MeteringMetrics,
    QueueMetrics,
    HeldMetrics,
    OrganizationMetrics,
    DeliveryMetrics,
    CanaryMetrics,
    MappingMetrics,
    ProviderMetrics,
    CreditMetrics,
    PostgresMetrics,
    OutgoingWebhookMetrics,
    ProcessMetrics,
):
    """The metrics of one process. The classes list the definitions; an instance has the metrics, in its registry."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self.registry = registry
        make_all(self, registry)
        for pair in combinations(ROUTES, 2):
            self.two_routes.labels(*pair)
        self.held_watch = HeldUsageMonitor(self)
        self.unbilled_watch = UnbilledUsageMonitor(self)
        watch_counts(registry)
        Info("meterbridge_build", "The running version.", registry=registry).info({"version": version})
