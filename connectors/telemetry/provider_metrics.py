"""The metrics of LLM providers and users' keys of them."""

from typing import Final

from connectors.telemetry.metric_definitions import counter, gauge
from streams.core.metering.provider_health import STATUSES as PROVIDER_STATUSES

PROVIDER_KEY_STATES: Final = ("active", "due", "old_secret", "unknown_secret")


class ProviderMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    providers = gauge(
        "meterbridge_providers",
        "Pairs of provider and model by how well they answer, over the last ten minutes (project).",
        status=PROVIDER_STATUSES,
    )
    provider_keys = gauge(
        "meterbridge_provider_keys",
        "Users' active keys of LLM providers: all; due to be replaced; under an older secret, or one that is not set (api).",
        state=PROVIDER_KEY_STATES,
    )
    provider_keys_resolved = counter(
        "meterbridge_provider_keys_resolved_total",
        "Requests for a user's provider key in the clear; unreadable: it could not be decrypted (api).",
        outcome=("resolved", "none", "unreadable"),
    )
