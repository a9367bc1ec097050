"""The profiles `monitoring` and `kafka-ui`: services whose images are available see the deployment."""

from typing import Any

import httpx

from tests.deploy.compose import Failed
from tests.deploy.trial import Trial, step, until

PROMETHEUS = "http://127.0.0.1:9090"
WATCHERS = ("prometheus", "alertmanager", "grafana", "kafka-ui")
_PROFILES = ("--profile", "monitoring", "--profile", "kafka-ui")


def watching(trial: Trial) -> None:
    """Everything is healthy, every role is scraped, the rules are loaded, and Prometheus has found Alertmanager."""
    there = [service for service in WATCHERS if trial.compose.can_have(service, *_PROFILES)]
    if missing := set(WATCHERS) - set(there):
        print(f"          not tried, their images cannot be had: {', '.join(sorted(missing))}")
    if not there:
        return
    with step(f"monitoring: {', '.join(there)}"):
        trial.compose.run(*_PROFILES, "up", "--wait", "--no-recreate", "--no-build", *there)
        if "prometheus" in there:
            until(_all_scraped, "every role is scraped", 60, _down)
            rules = _ask("/api/v1/rules")["groups"]
            if not rules:
                raise Failed("Prometheus has no rules")
            print(f"          {sum(len(group['rules']) for group in rules)} rules")
        if {"prometheus", "alertmanager"} <= set(there) and not _ask("/api/v1/alertmanagers")["activeAlertmanagers"]:
            raise Failed("Prometheus has not found Alertmanager")
        trial.compose.run(*_PROFILES, "rm", "--force", "--stop", *there)


def _ask(path: str) -> Any:
    return httpx.get(PROMETHEUS + path, trust_env=False, timeout=10).json()["data"]


def _down() -> list[str]:
    """The targets that are not scraped, and why."""
    targets = _ask("/api/v1/targets")["activeTargets"]
    return [f"{one['scrapeUrl']}: {one['lastError']}" for one in targets if one["health"] != "up"]


def _all_scraped() -> bool:
    return bool(_ask("/api/v1/targets")["activeTargets"]) and not _down()
