"""`make litellm-matrix`: what a version of LiteLLM reports of each kind of call, and what is billed for it.

Without `--record` the results are compared with the recorded ones: of the same version, or else of the newest. The exit code is
1 if they differ in meaning. The last line begins with `SAME` or `DIFFERENT`.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.litellm_matrix.page import PAGE, TABLE, impossible, page, table
from tests.litellm_matrix.planted import PLANTS
from tests.litellm_matrix.results import compared, recorded, versions, write
from tests.litellm_matrix.run import Outcome, run_scenarios
from tests.litellm_matrix.scenario import SCENARIOS
from tests.litellm_matrix.versions import NEWEST, VERSIONS, install


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.litellm_matrix", description=__doc__)
    parser.add_argument(
        "--version",
        action="append",
        help=f"of LiteLLM, {NEWEST} by default; may be repeated; `all` = the compared ones",
    )
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="only this one; may be repeated")
    parser.add_argument("--plant", choices=PLANTS, default="", help="change what LiteLLM reports")
    parser.add_argument("--record", action="store_true", help="write the results, the page and the doctor's table")
    parser.add_argument(
        "--write", action="store_true", help="write the page and the table from what is recorded, and end"
    )
    parser.add_argument("--fetch", action="store_true", help=f"install LiteLLM {NEWEST} if it is missing, and end")
    chosen = parser.parse_args()
    if chosen.fetch:
        install(NEWEST)
        return 0
    different = 0
    if not chosen.write:
        asked = chosen.version or [NEWEST]
        for version in VERSIONS if asked == ["all"] else asked:
            different += _tried(version, chosen.scenario or list(SCENARIOS), chosen.plant, record=chosen.record)
    if chosen.write or chosen.record:
        PAGE.write_text(page())
        TABLE.write_text(table())
    return 1 if different else 0


def _tried(version: str, scenarios: Sequence[str], plant: str, *, record: bool) -> int:
    """Run one version; returns how many scenarios differ from the recorded ones."""
    folder = Path(tempfile.mkdtemp(prefix=f"litellm-matrix-{version}-"))
    print(f"LiteLLM {version}{f' with {plant}' if plant else ''}: logs in {folder}", flush=True)
    outcome = asyncio.run(run_scenarios(folder, install(version), scenarios, plant))
    (folder / "results.json").write_text(json.dumps(outcome.results, indent=1))
    _show(outcome)
    if record:
        write(version, outcome)
        return 0
    base = version if version in versions() else versions()[-1]
    found = compared(recorded(base), {n: r for n, r in outcome.results.items() if not impossible(base, n)})
    for name, lines in found.items():
        print(f"DIFFERS  {name}: {'; '.join(lines)}")
    word = f"DIFFERENT from {base}: {len(found)} of" if found else f"SAME as {base}:"
    print(f"{word} {len(outcome.results)} scenarios, LiteLLM {version}{f' with {plant}' if plant else ''}")
    return len(found)


def _show(outcome: Outcome) -> None:
    for name, result in outcome.results.items():
        same = "  " if result["owed"] == result["billed"] else "!="
        print(f"{same} {name:22} owed {result['owed']:>9} billed {result['billed']:>9}  client {result['client']}")
    lost = Counter(outcome.lost)
    if lost:
        print(f"logged by LiteLLM and never posted, judged all the same: {dict(lost)}")


if __name__ == "__main__":
    sys.exit(main())
