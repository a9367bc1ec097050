"""The metrics of a process: its roles, certificates, the audit log and its traces."""

from collections.abc import Callable
from typing import Final

from connectors.telemetry.metric_definitions import counter, gauge

#: The possible roles of a process: the parts of `meterbridge serve`, the roles of `meterbridge worker`, and
#: `meterbridge canary`.
ROLES: Final = ("webhooks", "api", "meter", "sink", "retry", "project", "canary")


class ProcessMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    role = gauge("meterbridge_role", "1: this process has the role.", role=ROLES)
    certificate = gauge(
        "meterbridge_certificate_expires_seconds",
        "Seconds until the certificate ends that a setting names; negative: it has ended; 0: its file cannot be read.",
        setting=(),
    )
    audit_broken = gauge(
        "meterbridge_audit_chain_broken",
        "1: the chain of hashes does not hold in the last 10 000 lines of the audit log (api).",
    )
    trace_spans = counter(
        "meterbridge_trace_spans_total",
        "Spans of traces by what became of them; dropped: too many were waiting for the receiver.",
        outcome=("exported", "failed", "dropped"),
    )

    def has_roles(self, *roles: str) -> None:
        """Export the roles of this process; `roles` are members of `ROLES`."""
        for name in roles:
            self.role.labels(name).set(1)

    def watch_certificate(self, setting: str, expires_s: Callable[[], float]) -> None:
        """Export when the certificate of a setting ends; each scrape calls `expires_s`, in any thread."""
        self.certificate.labels(setting).set_function(expires_s)

    def spans(self, outcome: str, count: int) -> None:
        """Count spans that were exported, or are lost; called in any thread."""
        self.trace_spans.labels(outcome).inc(count)
