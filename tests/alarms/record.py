"""The final output of a trial, and the file with the result of the last trial of each alarm."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.alarms.rules import alerts

FILE: Final = Path(__file__).with_name("rang.json")


class Rung(NamedTuple):
    """An alarm that fired in a trial.

    Fields:
        after_s: seconds from the begin of its fault, with the shortened times.
        others: its consequences that rang as well.
    """

    after_s: int
    others: list[str]


def summary_lines(
    rang: Collection[str], wanted: Sequence[str], faults: Collection[str], reasons: Mapping[str, str]
) -> tuple[list[str], bool]:
    """The lines about alarms that did not fire; and whether every rule has a fault or a reason."""
    silent = [name for name in wanted if name not in rang]
    forgotten = [alert.name for alert in alerts() if alert.name not in faults and alert.name not in reasons]
    lines = [f"did not ring alone: {name}" for name in silent]
    lines += [f"cannot be broken here: {name}: {why}" for name, why in reasons.items()]
    lines += [f"has neither a fault nor a reason: {name}" for name in forgotten]
    return lines, not forgotten


def recorded(rang: Mapping[str, Rung], wanted: Sequence[str]) -> None:
    """Write the results into the file; an alarm that was tested and did not fire is removed from it."""
    before = known()
    now = {name: rung for name, rung in before.items() if name not in wanted} | dict(rang)
    listed = {alert.name: now[alert.name]._asdict() for alert in alerts() if alert.name in now}
    FILE.write_text(json.dumps(listed, indent=2) + "\n", "utf-8")


def known() -> dict[str, Rung]:
    """The results of the last trial of each alarm."""
    read = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    return {name: Rung(**rung) for name, rung in read.items()}
