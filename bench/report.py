"""The measurements as rows: a table for people, a list of objects for programs.

Every figure is a cost, so a ratio is the peer's figure divided by ours: above 1, ours is better.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.contest import Measured

#: The least ratio to reach, by row and peer.
TARGETS = {
    ("meter_flat_wall", "quix"): 1.5,
    ("meter_flat_cpu", "quix"): 1.5,
    ("meter_flat_wall", "faust"): 5.0,
    ("meter_flat_cpu", "faust"): 5.0,
    ("ledger_recovery_wall", "bare"): 0.5,
    ("ingress_single_cpu", "bare"): 1 / 1.8,
    ("ingress_array_cpu", "bare"): 1 / 3,
    ("projector_wall", "copy"): 1 / 3,
    ("projector_prepaid_wall", "copy"): 1 / 3,
}
#: The upper bound of our own figure, by row. 100 us a call are 10,000 calls a second.
CEILINGS = {"memory_per_id": 32.0, "projector_wall": 100.0, "projector_prepaid_wall": 100.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ours and one peer's: that of each repeat, in `unit`; the median counts.

    Fields:
        peer: `quix`, `faust`, `bare` or `copy`.
    """

    name: str
    unit: str
    peer: str
    all_ours: Sequence[float]
    all_peers: Sequence[float]

    @property
    def ours(self) -> float:
        """Our figure."""
        return median(self.all_ours)

    @property
    def peer_value(self) -> float:
        """The peer's figure."""
        return median(self.all_peers)

    @property
    def ratio(self) -> float:
        """The peer's cost divided by ours."""
        return self.peer_value / self.ours

    def target(self) -> tuple[str, bool] | None:
        """The target and whether it is reached; None where there is none."""
        asked = []
        if (least := TARGETS.get((self.name, self.peer))) is not None:
            asked.append((f"ratio >= {least:.2f}", self.ratio >= least))
        if (most := CEILINGS.get(self.name)) is not None:
            asked.append((f"ours <= {most:.0f}", self.ours <= most))
        return (", ".join(answer for answer, _ in asked), all(reached for _, reached in asked)) if asked else None

    def as_object(self) -> dict[str, str | float]:
        """The row for programs."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": round(self.ours, 4),
            "peer": self.peer,
            "peer_value": round(self.peer_value, 4),
            "ratio": round(self.ratio, 4),
        }


def rows_of(name: str, unit: str, found: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """Wall and CPU rows of `ours` against each other contestant in `found`."""
    ours = found["ours"]
    rows = []
    for peer in (peer for peer in found if peer != "ours"):
        theirs = found[peer]
        rows.append(Row(f"{name}_wall", unit, peer, [one.wall for one in ours], [one.wall for one in theirs]))
        rows.append(Row(f"{name}_cpu", unit, peer, [one.cpu for one in ours], [one.cpu for one in theirs]))
    return rows


def write(rows: Sequence[Row], path: Path, *, add: bool = False) -> None:
    """Write the rows of this run; earlier ones are replaced. Args: add: only those of the same names and peers are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = [row.as_object() for row in rows]
    if add:
        measured = {(row.name, row.peer) for row in rows}
        old = json.loads(path.read_text())
        new = [one for one in old if (one["name"], one["peer"]) not in measured] + new
    path.write_text(json.dumps(new, indent=2) + "\n")


def show(rows: Sequence[Row], title: str) -> None:
    """Print the rows as a table; in brackets the least and the most of the repeats."""
    table = Table(title=title, title_justify="left")
    for heading in ("name", "unit", "ours", "peer", "its figure", "ratio", "target"):
        table.add_column(heading, justify="right" if heading in {"ours", "its figure", "ratio"} else "left")
    for row in rows:
        asked = row.target()
        table.add_row(
            row.name,
            row.unit,
            _spread(row.ours, row.all_ours),
            row.peer,
            _spread(row.peer_value, row.all_peers),
            f"{row.ratio:.2f}",
            "" if asked is None else f"{asked[0]}  {'reached' if asked[1] else 'MISSED'}",
        )
    Console(width=None if Console().is_terminal else 140).print(table)


def _spread(middle: float, values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{middle:.2f}"
    return f"{middle:.2f} ({min(values):.2f}..{max(values):.2f})"
