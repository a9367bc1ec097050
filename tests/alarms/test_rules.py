"""Each alarm fires when it must, alone, and not for similar series; run by Prometheus' own `promtool`."""

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.alarms.cases import CASES, HEALTHY, SAMPLES, Series
from tests.alarms.rules import RULES, alerts, rules
from tests.support.prometheus import program

FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'
_MINUTES = {"1m": 1, "10m": 10, "30m": 30}
#: Rules are evaluated seldom, because this is what the test spends its time with.
_TOGETHER = 5
_EVALUATED = {"1m": "5m", "10m": "10m", "30m": "30m"}


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments],
        env=os.environ | {"GOGC": "400"},  # a fifth of its time is Go's garbage collector
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def scenario(name: str, series: Series, step: str, *firing: str) -> dict[str, Any]:
    """A test for promtool: with these series and the healthy ones, these alarms fire at the last step and no other."""
    all_series = HEALTHY | series
    return {
        "name": name,
        "interval": step,
        "input_series": [{"series": one, "values": values} for one, values in all_series.items()],
        "promql_expr_test": [
            {
                "expr": FIRING,
                "eval_time": f"{SAMPLES * _MINUTES[step]}m",
                "exp_samples": [{"labels": f'{{alertname="{alarm}"}}', "value": 1} for alarm in firing],
            }
        ],
    }


def quiet() -> Iterator[tuple[str, list[str], Series]]:
    """Similar series that must not fire, several alarms at once if they have no series in common: step, their names,
    all series.
    """
    for step in _MINUTES:
        packs: list[tuple[list[str], dict[str, str]]] = []
        for name, case in CASES.items():
            if case.step != step:
                continue
            fits = (pack for pack in packs if len(pack[0]) < _TOGETHER and not pack[1].keys() & case.quiet.keys())
            if (pack := next(fits, None)) is None:
                packs.append(pack := ([], {}))
            pack[0].append(name)
            pack[1].update(case.quiet)
        yield from ((step, *pack) for pack in packs)


def test_every_alarm_fires_alone_and_not_for_similar_series(tmp_path: Path) -> None:
    tests = defaultdict(list)
    for step in _MINUTES:
        tests[step].append(scenario("all is well", {}, step))
    for name, case in CASES.items():
        tests[case.step].append(scenario(f"{name} fires", case.fires, case.step, name))
    for step, names, series in quiet():
        tests[step].append(scenario(f"none fires of {', '.join(names)}", series, step))
    for step, of_step in tests.items():
        file = tmp_path / f"{step}.yml"
        body = {
            "rule_files": [str(path) for path in sorted(RULES.glob("*.yml"))],
            "evaluation_interval": _EVALUATED[step],
            "group_eval_order": [
                "meterbridge-recording",
                *(f"meterbridge-{file}" for file in rules() if file != "recording"),
            ],
            "tests": of_step,
        }
        file.write_text(json.dumps(body), "utf-8")  # it is YAML, too, and written in a hundredth of the time
        promtool("test", "rules", str(file))


def test_every_alarm_has_its_cases() -> None:
    assert CASES.keys() == {alert.name for alert in alerts()}


def test_prometheus_accepts_the_rule_files() -> None:
    promtool("check", "config", str(RULES.parent / "prometheus.yml"))
    promtool("check", "rules", *(str(path) for path in sorted(RULES.glob("*.yml"))))
