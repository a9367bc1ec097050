"""The canary's metrics: a part of `connectors.telemetry.metrics.Metrics`."""

from collections.abc import Callable

from connectors.telemetry.metric_definitions import counter, gauge, histogram
from streams.core.delivery.canary import BILLED, LOST, RESULTS, Outcome

_FAILURES = tuple(result for result in RESULTS if result not in {BILLED, LOST})
_BILLED_BUCKETS = (1, 2, 5, 10, 30, 60, 70, 80, 90, 120, 180, 300, 600, 1800)


class CanaryMetrics:
    """The outcomes of the canary's calls. In other processes all values stay zero."""

    canary_posted = counter("meterbridge_canary_posted_total", "Calls of the canary that the ingress took (canary).")
    canary_calls = counter(
        "meterbridge_canary_calls_total", "Calls of the canary by what became of them (canary).", result=RESULTS
    )
    canary_failing = gauge(
        "meterbridge_canary_failing",
        "1: the last call whose end is known was not billed rightly and in time, for this reason (canary).",
        reason=_FAILURES,
    )
    canary_billed_age = gauge(
        "meterbridge_canary_billed_age_seconds",
        "Seconds since the last call that was billed rightly and in time; before the first one, since the start (canary).",
    )
    canary_billed_seconds = histogram(
        "meterbridge_canary_billed_seconds",
        "Seconds from the post of a call until it was seen at Lago (canary).",
        _BILLED_BUCKETS,
    )

    def canary_decided(self, outcome: Outcome) -> None:
        """Count the outcome of a call. A late call was counted when it was due. The gauge shows the last call."""
        if outcome.wait_us:
            self.canary_billed_seconds.observe(outcome.wait_us / 1_000_000)
        if outcome.late and outcome.result == BILLED:
            return
        self.canary_calls.labels(outcome.result).inc()
        if outcome.overtaken:
            return
        for reason in _FAILURES:
            self.canary_failing.labels(reason).set(reason == outcome.result)

    def watch_canary(self, billed_age_s: Callable[[], float]) -> None:
        """Export the age of the last billed call; each scrape calls `billed_age_s`, in any thread."""
        self.canary_billed_age.set_function(billed_age_s)
