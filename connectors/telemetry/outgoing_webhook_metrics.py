"""The metrics of outgoing webhooks."""

from typing import Final

from connectors.telemetry.metric_definitions import counter, gauge

WEBHOOK_ATTEMPTS: Final = ("sent", "failed", "given_up", "error")


class OutgoingWebhookMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    webhooks_sent = counter(
        "meterbridge_outgoing_webhooks_total",
        "Attempts to send an outgoing webhook, by outcome; error: an error of ours (project).",
        outcome=WEBHOOK_ATTEMPTS,
    )
    webhooks_waiting = gauge(
        "meterbridge_outgoing_webhooks_waiting", "Outgoing webhooks that wait to be sent or sent again (project)."
    )
    webhooks_disabled = gauge(
        "meterbridge_outgoing_webhook_endpoints_disabled",
        "Endpoints that get no outgoing webhook any more, because they took none for five days or are gone (project).",
    )
