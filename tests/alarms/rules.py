"""The alert and recording rules in deploy/prometheus/rules."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules"
#: What the addresses of runbooks begin with; operators replace it.
BASE = "https://meterbridge.example/"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert rule; `file` is the name of its file without the ending."""

    file: str
    name: str
    expression: str
    hold: str
    severity: str
    summary: str
    description: str
    runbook: str


@cache
def rules() -> dict[str, list[dict[str, Any]]]:
    """All rules by the name of their file, as written there."""
    return {
        path.stem: [rule for group in yaml.safe_load(path.read_text("utf-8"))["groups"] for rule in group["rules"]]
        for path in sorted(RULES.glob("*.yml"))
    }


def alerts() -> list[Alert]:
    """All alert rules."""
    return [
        Alert(
            file,
            rule["alert"],
            rule["expr"],
            rule.get("for", "0s"),
            rule["labels"]["severity"],
            rule["annotations"]["summary"],
            rule["annotations"]["description"],
            rule["annotations"]["runbook_url"],
        )
        for file, listed in rules().items()
        for rule in listed
        if "alert" in rule
    ]


def recorded() -> dict[str, str]:
    """The expression of each recording rule by the name of its series."""
    return {rule["record"]: rule["expr"] for listed in rules().values() for rule in listed if "record" in rule}
