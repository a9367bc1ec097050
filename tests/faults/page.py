"""Makes docs/reliability.md from the matrix and the figures of the last run."""

from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from typing import Any

from tests.faults.matrix_rows.meaning import Rule
from tests.faults.matrix_rows.row import Check, Row

Results = Mapping[str, Mapping[str, Any]]

#: The suffixes of the names of figures, which show their units.
_UNITS = {"s": "s", "ms": "ms", "mib": "MiB"}
_HEAD = """\
# Reliability

The promises, their limits, and the faults that the tests inject. This page is generated:
`make reliability` makes it from the fault matrix (`tests/faults/matrix.py`) and the last run's figures
(`tests/faults/results.json`).

## Promised

After a 202, during all faults in the tables below:

{promises}

`I1` and so on in the tables below name the promises that the tests of a row check.

## Not promised

- **Lago on ClickHouse without deduplication.** It keeps a repeat as a second event, and bills it. An event with an
  unknown result is therefore looked up before it is posted again. But that store shows an event late, so a repeat is unlikely, but
  possible ([what Lago does](lago-behaviour.md)). `meterbridge doctor` names such a Lago, a worker's log warns of it.
- Calls that LiteLLM never sent, or dropped after a 503: [its own losses](litellm.md).
- Calls in the spool of an ingress whose disk is lost during an outage: the spool is a single copy ([ADR 0011](adr/0011-a-spool-before-kafka.md)).
- Records that stay unprocessed longer than the retention of their topic: 30 days for usage and events, 14 days or more for the others ([topics](architecture.md#topics)).
- A power cut. Every kill in these tests keeps the page cache of the operating system. A record that only one broker has may
  not be on its disk yet. Production needs three replicas and `min.insync.replicas=2`, which the catalogue of topics sets.
- One call that arrives under two customers, or through two callbacks of LiteLLM: [architecture](architecture.md#promised-and-not).
- Prices: without a [rate card](rates.md), LiteLLM's cost is billed as it came.

## How to run it

<!-- not run: it takes minutes to hours -->
```sh
make test
make test ARGS="tests/faults -k storm"
make soak MINUTES=60
FAULT_SEED=4711 make test ARGS=tests/faults/test_exactness.py
.venv/bin/pytest --fault-results --long-faults
make reliability
```

In this order, the commands

1. run all rows in minutes, with a real Kafka and a real Postgres;
2. run some of the rows;
3. make new random kills, freezes and cuts each minute, and count every cent;
4. repeat the same random faults;
5. run all rows with the full duration of long faults, and store the figures;
6. write this page.

A row runs against a real Kafka, and a real Postgres where it has one, unless its last column says *simulated*, with the reason. {counts}
"""

_MEANING = (
    "An invoice can be wrong without any fault: the kind of a call, its customer and the time of its billing must be correct as well.",
    "[What is owed](owed.md) states the rules on one page. Each rule was broken once; these tests now check them.",
)


def page(chapters: Mapping[str, Sequence[Row]], results: Results, rules: Sequence[Rule] = ()) -> str:
    """Return the page. A test without a result says so."""
    rows = [row for rows in chapters.values() for row in rows]
    simulated = sum(1 for row in rows if row.simulated)
    counts = f"{len(rows)} rows, {simulated} of them simulated. {_run(rows, results)}"
    promises = "\n".join(
        f"- **{_mark(check)}, {check.name.lower().replace('_', ' ')}.** {check.value}" for check in Check
    )
    parts = [_HEAD.format(promises=promises, counts=counts)]
    for chapter, its in chapters.items():
        parts += [f"## {chapter}", "", *_table(its, results), ""]
    if rules:
        parts += ["## Money without a crash", "", *_MEANING, "", "| rule | tests, below `tests/` |", "|---|---|"]
        parts += [f"| {rule.rule} | {'<br>'.join(f'`{test}`' for test in rule.tests)} |" for rule in rules]
        parts.append("")
    parts += ["## The tests", "", "| row | tests, below `tests/` |", "|---|---|"]
    parts += [f"| {row.number} | {'<br>'.join(f'`{test}`' for test in row.tests)} |" for row in rows]
    return "\n".join(parts) + "\n"


def _run(rows: Iterable[Row], results: Results) -> str:
    ran = [results[test] for row in rows for test in row.tests if test in results]
    days = sorted({result["day"] for result in ran})
    machines = sorted({result["machine"] for result in ran})
    return f"Figures of {' to '.join(dict.fromkeys((days[0], days[-1])))}, {'; '.join(machines)}." if ran else ""


def _table(rows: Iterable[Row], results: Results) -> list[str]:
    lines = ["| # | fault | how | promises | what must happen | last run |", "|---|---|---|---|---|---|"]
    for row in rows:
        marks = ", ".join(_mark(check) for check in row.checks)
        how = f"{row.injected}; longer: {row.longer}" if row.longer else row.injected
        cells = (str(row.number), row.fault, how, marks, row.expected, _last(row, results))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _last(row: Row, results: Results) -> str:
    """Return the row's outcome; the figures are those of all its tests."""
    said = [f"*simulated: {row.simulated}*"] if row.simulated else []
    result = [results[test] for test in row.tests if test in results]
    if len(result) < len(row.tests):
        return "; ".join([*said, "not run"])
    bad = sorted({one["outcome"] for one in result} - {"passed"})
    cases = sum(one["cases"] for one in result)
    seconds = fsum(one["seconds"] for one in result)  # `sum` rounds in other ways before Python 3.12
    said.append(f"{' and '.join(bad) or 'passed'}, {f'{cases} cases, ' if cases > 1 else ''}{seconds:.0f} s")
    for one in result:
        said += [
            _figure(name, value) for name, value in one["figures"].items() if name in (row.shows or one["figures"])
        ]
    return "; ".join(said)


def _figure(name: str, value: float | str) -> str:
    words, _, unit = name.rpartition("_")
    words, unit = (words, f" {_UNITS[unit]}") if unit in _UNITS else (name, "")
    shown = f"{value:.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
    return f"{words.replace('_', ' ')} {shown}{unit}"


def _mark(check: Check) -> str:
    return f"I{list(Check).index(check) + 1}"
