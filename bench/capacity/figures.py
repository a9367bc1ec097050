"""The calculator's figures, taken from recorded results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.capacity.model import Figures
from bench.capacity.results import Rows
from streams.core.metering.identity import IDENTITY_BYTES

LATEST = Path(__file__).parents[1] / "results" / "latest.json"
#: The rows of `identities` that the figures come from: the smallest and the largest steps.
SMALL_STEP, LARGE_STEP = 2, 1000

Row = Mapping[str, Any]


def figures(recorded: Mapping[str, Rows], latest: Path = LATEST) -> Figures:
    """CPU times are those of full batches (bench/results/latest.json); sizes those of `flow`."""
    ours = {row["name"]: float(row["ours"]) for row in json.loads(latest.read_text())}
    (flow,) = recorded["flow"]
    small, large = steps_of(recorded, SMALL_STEP)[-1], steps_of(recorded, LARGE_STEP)[-1]
    steps = small["identities"] / SMALL_STEP
    identity, identity_us = ours["memory_per_id"], large["restore_cpu_s"] * 1e6 / large["identities"]

    return Figures(
        ingress_us=ours["ingress_single_cpu"],
        meter_us=ours["meter_slp_cpu"],
        project_us=ours["projector_cpu"],
        sink_us=flow["sink_us"],
        a_call={"raw": flow["raw_plain"], "enriched": flow["enriched"], "changelog": flow["changelog"]},
        an_event=dict(flow["an_event"]),
        changelog_identity=IDENTITY_BYTES,
        changelog_step=(small["changelog_mb"] * 1e6 - small["identities"] * IDENTITY_BYTES) / steps,
        identity=identity,
        step=float(max(recorded["steps"], key=lambda row: (row["a_step"] == SMALL_STEP, row["steps"]))["most"]),
        identity_us=identity_us,
        step_us=(small["restore_cpu_s"] * 1e6 - small["identities"] * identity_us) / steps,
        row_call=flow["row_call"],
        row_event=flow["row_event"],
    )


def steps_of(recorded: Mapping[str, Rows], a_step: int) -> Sequence[Row]:
    """The rows of `identities` with steps of this size, the fewest identities first."""
    return sorted((row for row in recorded["identities"] if row["a_step"] == a_step), key=lambda row: row["identities"])
