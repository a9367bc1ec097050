"""The rules of deploy/prometheus for a trial of minutes: times are shorter, and numbers that are times or sums are
smaller.
"""

import re
from pathlib import Path
from typing import Any, Final

import yaml

from tests.alarms.rules import RULES

_WINDOWS: Final = {"5m": "10s", "15m": "15s", "1h": "20s", "6h": "30s", "1d": "4m"}
_OFFSETS: Final = {"1h": "20s", "6h": "40s", "1d": "80s", "1w": "1w"}
_HOLDS: Final = {"1m": "2s", "2m": "3s", "5m": "5s", "10m": "8s", "15m": "8s", "1h": "10s", "6h": "10s"}
#: What else is another text in one alarm. A role may be away for as long as a process takes to start again, and Lago may not
#: be asked for half a minute.
_OWN: Final[dict[str, dict[str, str]]] = {
    "MeterbridgeNothingArrives": {"> 60": "> 10", "<= 60": "<= 10"},
    "MeterbridgeMeterBehind": {"> 600": "> 20"},
    "MeterbridgeCanaryNotBilled": {"> 600": "> 8"},
    "MeterbridgeDeliveryBehind": {"> 900": "> 10"},
    "MeterbridgeProjectorBehind": {"> 600": "> 8", "604800": "60"},
    "MeterbridgeProjectorHalfwayToDeletion": {"604800": "60"},
    "MeterbridgeTablesStale": {"> 60": "> 15"},
    "MeterbridgeBackgroundTaskFails": {"> 3": "> 1"},
    "MeterbridgeLagoDown": {"[10s]": "[45s]"},
    "MeterbridgeLagoKeyRefused": {"[10s]": "[45s]"},
    "MeterbridgeLagoOrganizationDown": {"[10s]": "[45s]"},
    "MeterbridgeLagoOrganizationKeyRefused": {"[10s]": "[45s]"},
}
_OWN_HOLDS: Final = {"MeterbridgeRoleMissing": "25s", "MeterbridgeTargetDown": "25s", "MeterbridgeSpooling": "25s"}
# The age of waiting records is measured every 30 s.
_OWN_HOLDS |= {"MeterbridgeCanaryGone": "25s", "MeterbridgeCanaryNotBilled": "30s"}
_OWN_HOLDS |= {"MeterbridgeLedgersNotOpen": "40s", "MeterbridgeMeterBehind": "30s", "MeterbridgeTablesStale": "40s"}


def shortened(folder: Path) -> None:
    """Write the shortened rule files into `folder`."""
    for path in RULES.glob("*.yml"):
        file: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
        for group in file["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                _shorten(rule)
        (folder / path.name).write_text(yaml.safe_dump(file, sort_keys=False), "utf-8")


def _short(times: dict[str, str], table: str, rule: str, long: str) -> str:
    if long not in times:
        raise ValueError(
            f"{rule or 'a recording rule'} has the time {long}, which is not in {table} of tests/alarms/shortened.py: add how long it is "
            f"in a trial, such as {', '.join(f'{one} = {short}' for one, short in times.items())}"
        )
    return times[long]


def _shorten(rule: dict[str, Any]) -> None:
    name = rule.get("alert", "")
    text = re.sub(r"\[(\w+)\]", lambda found: f"[{_short(_WINDOWS, '_WINDOWS', name, found[1])}]", rule["expr"])
    text = re.sub(r"offset (\w+)", lambda found: f"offset {_short(_OFFSETS, '_OFFSETS', name, found[1])}", text)
    for long, short in _OWN.get(name, {}).items():
        if long not in text:
            raise ValueError(f"{name} has no {long}: {text}")
        text = text.replace(long, short)
    rule["expr"] = text
    if "for" in rule:
        rule["for"] = _OWN_HOLDS.get(name) or _short(_HOLDS, "_HOLDS", name, rule["for"])
