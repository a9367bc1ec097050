"""Rules, dashboards, metrics and runbooks agree: every name exists, and every metric is used."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.telemetry.metrics_page import CHAPTERS
from tests.alarms.promql import ADDED, exported, family, grouped_by, labels, selectors
from tests.alarms.rules import BASE, ROOT, RULES, Alert, alerts, recorded
from tests.alarms.shortened import _shorten, shortened
from tests.unit.repository.test_docs import anchors

GRAFANA = ROOT / "deploy" / "grafana"
PAGE = ROOT / "docs" / "alarms.md"
#: Metrics that neither an alarm nor a panel reads, and why.
UNUSED: dict[str, str] = {
    "meterbridge_trace_spans_total": "traces are off by default, and a lost span moves no money; docs/tracing.md shows a query"
}
BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text("utf-8")) for path in GRAFANA.glob("*.json")}
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in board["panels"]]
EXPRESSIONS = {
    **{alert.name: alert.expression for alert in alerts()},
    **recorded(),
    **{
        f"{name}: {panel['title']} {target['refId']}": target["expr"]
        for name, panel in PANELS
        for target in panel["targets"]
    },
}
COUNTED = re.compile(r"\b(?:increase|rate)\(([^()]*?)\[")


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_metric_label_and_value_is_exported_by_a_process(where: str) -> None:
    named: set[str] = set()
    for selector in selectors(EXPRESSIONS[where]):
        if selector.name in {*recorded(), "up"}:
            named |= {"role", *(label for label, _, _ in selector.matchers)}
            continue
        assert selector.name in labels() or family(selector.name) in labels(), selector.name
        own = labels()[family(selector.name)] | ADDED
        named |= own
        series = exported().get(selector.name, [])
        for label, operator, value in selector.matchers:
            assert label in own, f"{selector.name} has no label {label}"
            values = {one[label] for one in series if label in one}
            for word in value.split("|") if operator.startswith("=") and values else ():
                assert word in values, f"{selector.name} has no {label} {word}"
    assert grouped_by(EXPRESSIONS[where]) <= named


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alarm_sees_the_first_increase_of_its_counter(alert: Alert) -> None:
    """`increase()` of a series that appears with 1 is 0: each series must exist with the value 0 before the first case."""
    for text in COUNTED.findall(alert.expression):
        (selector,) = selectors(text)
        assert any(selector.takes(one) for one in exported().get(selector.name, ())), text


def test_every_metric_is_used_or_declared_unused() -> None:
    used = {family(selector.name) for text in EXPRESSIONS.values() for selector in selectors(text)}
    everything = {name for guide in CHAPTERS.values() for name in guide}
    assert everything - used == UNUSED.keys()
    assert all(len(why) > 10 for why in UNUSED.values())


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_every_alarm_has_its_runbook(alert: Alert) -> None:
    assert alert.name.startswith("Meterbridge")
    assert alert.severity in {"page", "ticket"}
    assert alert.runbook == f"{BASE}docs/runbooks/{alert.file}.md#{alert.name.lower()}"
    page = ROOT / "docs" / "runbooks" / f"{alert.file}.md"
    assert alert.name.lower() in anchors(page)
    section = page.read_text("utf-8").split(f"\n## {alert.name}\n")[1].split("\n## ")[0]
    assert all(f"**{part}.**" in section for part in ("Means", "Check", "Do"))
    _, _, solved = section.partition("\n**Solved when:** ")
    assert solved.strip()
    everything = {name for guide in CHAPTERS.values() for name in guide}
    assert {family(name) for name in re.findall(r"`(meterbridge_\w+)", solved)} <= everything
    assert f"[{alert.name}](runbooks/{alert.file}.md#{alert.name.lower()})" in PAGE.read_text("utf-8")


def test_every_reason_of_a_halt_has_its_command_in_the_runbook() -> None:
    """The engineer on duty needs the command for this reason, and no other."""
    errors = (ROOT / "docs" / "errors.md").read_text("utf-8").partition("\n## A partition task that has halted\n")[2]
    reasons = re.findall(r"^\| `(\w+)`", errors.partition("\n## ")[0], re.MULTILINE)
    runbook = (ROOT / "docs" / "runbooks" / "metering.md").read_text("utf-8").partition("\n## MeterbridgeLedgerImb")[0]
    rows = "\n".join(line.split("|")[1] for line in runbook.splitlines() if line.startswith("| "))
    assert len(reasons) > 10
    assert [reason for reason in reasons if f"`{reason}`" not in rows] == []


def test_every_runbook_has_its_alarm_in_the_order_of_the_rules() -> None:
    for page in sorted((ROOT / "docs" / "runbooks").glob("*.md")):
        headings = re.findall(r"^## (.+)$", page.read_text("utf-8"), re.MULTILINE)
        assert headings == [alert.name for alert in alerts() if alert.file == page.stem]
    rows = re.findall(r"^\| \[(\w+)\].*\| (page|ticket) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted((alert.name, alert.severity) for alert in alerts())


def test_the_dashboards_are_generated_from_their_list() -> None:
    created = runpy.run_path(str(GRAFANA / "make.py"))["dashboards"]()
    assert created == {path.name: path.read_text("utf-8") for path in GRAFANA.glob("*.json")}, (
        "python deploy/grafana/make.py"
    )


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=lambda it: it if isinstance(it, str) else it["title"])
def test_a_panel_has_a_unit_and_the_data_source_of_the_variable(name: str, panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    variables = {word for target in panel["targets"] for word in re.findall(r"\$\w+", target["expr"])}
    assert variables <= {"$__rate_interval"}
    assert {link["url"] for link in panel["links"]} <= {alert.runbook for alert in alerts()}
    assert len({json.dumps(one["gridPos"]) for one in BOARDS[name]["panels"]}) == len(BOARDS[name]["panels"])


def test_the_runbooks_links_lead_to_a_page_of_this_repository() -> None:
    assert all(Path(ROOT / alert.runbook.removeprefix(BASE).partition("#")[0]).is_file() for alert in alerts())


def test_each_severity_has_a_receiver_whose_address_is_in_a_file() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alertmanager.yml").read_text("utf-8"))
    receivers = {one["name"]: one["webhook_configs"] for one in config["receivers"]}
    assert receivers.keys() == {alert.severity for alert in alerts()}
    assert all(set(hook) == {"url_file"} for hooks in receivers.values() for hook in hooks)
    routed = {route["matchers"][0]: route["receiver"] for route in config["route"]["routes"]}
    assert (config["route"]["receiver"], routed) == ("ticket", {'severity="page"': "page"})


def test_every_time_in_a_rule_has_a_short_one_for_a_trial(tmp_path: Path) -> None:
    shortened(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in RULES.glob("*.yml")}


def test_every_file_of_rules_has_its_file_of_faults() -> None:
    """If a recording rule is wrong, the alarms that read it do not fire."""
    faults = {path.stem for path in (ROOT / "tests" / "alarms" / "breakage").glob("*.py")} - {"__init__", "scene"}
    assert faults == {path.stem for path in RULES.glob("*.yml")} - {"recording"}


@pytest.mark.parametrize(
    ("rule", "table"),
    [
        ({"expr": "rate(x[7m]) > 0"}, "_WINDOWS"),
        ({"expr": "x offset 7m > 0"}, "_OFFSETS"),
        ({"expr": "x > 0", "for": "7m"}, "_HOLDS"),
    ],
)
def test_an_unknown_time_in_a_trial_is_an_error_that_says_where_to_add_it(rule: dict[str, str], table: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^MeterbridgeNew has the time 7m, .*{table} of tests/alarms/shortened.py: add"
    ):
        _shorten({"alert": "MeterbridgeNew", **rule})
