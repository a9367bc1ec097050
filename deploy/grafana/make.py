"""Makes the Grafana dashboards, deploy/grafana/*.json, from panels.yml: `python deploy/grafana/make.py`."""

import json
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RULES = HERE.parent / "prometheus" / "rules"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Of the grid of 24 columns.
_WIDTH, _HEIGHT = 8, 8
_TOO_MUCH = {"color": "red"}
_WELL = {"color": "green", "value": None}


def runbooks() -> dict[str, str]:
    """The address of each alarm's runbook, as its rule says it."""
    files = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(RULES.glob("*.yml"))]
    rules = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule}


def dashboards() -> dict[str, str]:
    """The text of each file by its name."""
    listed = yaml.safe_load((HERE / "panels.yml").read_text("utf-8"))
    links = runbooks()
    return {
        f"{name}.json": json.dumps(_dashboard(name, of, links), indent=1, ensure_ascii=False) + "\n"
        for name, of in listed.items()
    }


def _dashboard(name: str, of: dict[str, Any], links: dict[str, str]) -> dict[str, Any]:
    return {
        "uid": f"meterbridge-{name}",
        "title": f"Meterbridge: {of['title']}",
        "tags": ["meterbridge"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "links": [{"title": "Meterbridge", "type": "dashboards", "tags": ["meterbridge"], "asDropdown": True}],
        "panels": [_panel(number, panel, links) for number, panel in enumerate(of["panels"])],
    }


def _panel(number: int, panel: dict[str, Any], links: dict[str, str]) -> dict[str, Any]:
    steps = [_WELL]
    if panel.get("zero"):
        steps.append({**_TOO_MUCH, "value": 1e-9})
    elif "limit" in panel:
        steps.append({**_TOO_MUCH, "value": panel["limit"]})
    return {
        "id": number + 1,
        "title": panel["title"],
        "type": "timeseries",
        "datasource": _SOURCE,
        "gridPos": {
            "h": _HEIGHT,
            "w": _WIDTH,
            "x": number * _WIDTH % (3 * _WIDTH),
            "y": number // 3 * _HEIGHT,
        },
        "fieldConfig": {
            "defaults": {
                "unit": panel["unit"],
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "line" if len(steps) > 1 else "off"}},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for place, (legend, expression) in enumerate(panel["queries"].items())
        ],
        "links": [
            {"title": f"Runbook: {alarm}", "url": links[alarm], "targetBlank": True}
            for alarm in panel.get("alarms", ())
        ],
    }


if __name__ == "__main__":
    for file, text in dashboards().items():
        (HERE / file).write_text(text, "utf-8")
