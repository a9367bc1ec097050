"""The generated parts of docs/capacity.md, and its pictures."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.capacity import tables
from bench.capacity.curve import chart
from bench.capacity.figures import LARGE_STEP, figures, steps_of
from bench.capacity.model import Demand, Plan, plan
from bench.capacity.results import Rows

DOCS = Path(__file__).parents[2] / "docs"
PAGE, IMAGES = DOCS / "capacity.md", DOCS / "images"
RATES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)

Recorded = Mapping[str, Rows]


def write(recorded: Recorded) -> None:
    """Replace the generated parts of the page, and write the pictures."""
    PAGE.write_text(with_parts(PAGE.read_text(), parts(recorded)))
    IMAGES.mkdir(exist_ok=True)
    for name, picture in pictures(recorded).items():
        (IMAGES / name).write_text(picture)


def with_parts(page: str, made: Mapping[str, str]) -> str:
    """The page with its parts replaced. Raises: ValueError: it has no place for one of them."""
    for name, text in made.items():
        marks = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
        if not marks.search(page):
            raise ValueError(f"the page has no part {name}")
        page = marks.sub(lambda found, text=text: found[1] + text + found[2], page)
    return page


def parts(recorded: Recorded) -> dict[str, str]:
    """The tables by the names of their marks."""
    known = figures(recorded)
    plans = [plan(Demand(rate), known) for rate in RATES]
    return {
        "machines": tables.machines_table(plans),
        "bytes": tables.bytes_table(plans),
        "customers": tables.customers_table(recorded["customers"]),
        "identities": tables.identities_table(recorded["identities"]),
        "steps": tables.steps_table(recorded["steps"]),
        "flow": tables.flow_table(recorded["flow"]),
        "held": tables.held_table(recorded["held"]),
        "figures": tables.figures_table(known),
    }


def pictures(recorded: Recorded) -> dict[str, str]:
    """The charts by their file names."""
    customers, large = recorded["customers"], [one for one in steps_of(recorded, LARGE_STEP) if one["partitions"] == 1]
    of = {name: [row for row in customers if row["process"] == name] for name in ("meter", "api", "sink")}
    return {
        "capacity-customers.svg": chart(
            "Memory of a process", "mapped customers", "MB", {n: _line(r, "customers", "pss_mb") for n, r in of.items()}
        ),
        "capacity-customers-start.svg": chart(
            "CPU time until a process is ready",
            "mapped customers",
            "seconds",
            {name: _line(rows, "customers", "start_cpu_s") for name, rows in of.items()},
        ),
        "capacity-identities.svg": chart(
            "Memory after a restore, steps of 1000 calls",
            "identities",
            "MB",
            {"in all": _line(large, "identities", "pss_mb"), "the table": _line(large, "identities", "table_mb")},
        ),
        "capacity-restore.svg": chart(
            "CPU time of a restore",
            "identities",
            "seconds",
            {"one ledger": _line(large, "identities", "restore_cpu_s")},
        ),
    }


def described(planned: Plan) -> str:
    """One plan for a terminal."""
    return tables.machines_table([planned]) + "\n" + tables.bytes_table([planned])


def _line(rows: Iterable[Mapping[str, Any]], across: str, up: str) -> list[tuple[float, float]]:
    return [(float(row[across]), float(row[up])) for row in rows]
