"""A recorded day of LiteLLM, moved to today: its calls, and the rows of its database.

The recorded moments are moved by whole hours, so that the last call ended within the last hour: the meter remembers
identities for a day, and a test must not depend on the date on which it runs.
"""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

RECORDED: Final = Path(__file__).parents[1] / "fixtures" / "litellm"
_HOUR: Final = timedelta(hours=1)
_LAST: Final = datetime(2026, 11, 20, 23, 2, tzinfo=UTC)
_MOVED: Final = (datetime.now(UTC) - _LAST) // _HOUR * _HOUR
_MOMENT: Final = re.compile(r"2026-11-20 23:\d\d:\d\d(\.\d+)?")
_MOMENTS_OF_A_CALL: Final = ("startTime", "endTime", "completionStartTime")
_FIRST_DAY: Final = (_LAST + _MOVED - _HOUR).date()
#: The options that give a command the day.
DAY: Final = ("--from", str(_FIRST_DAY), "--to", str(_FIRST_DAY + timedelta(days=2)))


def recorded() -> list[dict[str, Any]]:
    """Return every StandardLoggingPayload of the day whose rows are in the database's export."""
    named = {row["request_id"] for row in exported()} | {row["litellm_call_id"] for row in exported()}
    seen: dict[tuple[str, str, str, float], dict[str, Any]] = {}
    for path in sorted(RECORDED.glob("generic_api__1.109.1__*.json")):
        if path.name.endswith(".headers.json"):
            continue
        body = json.loads(path.read_text())
        for call in body if isinstance(body, list) else [body]:
            if call and call["litellm_call_id"] in named:
                moved = {name: call[name] + _MOVED.total_seconds() for name in _MOMENTS_OF_A_CALL}
                seen[call["id"], call["litellm_call_id"], call["status"], call["startTime"]] = call | moved
    return list(seen.values())


def exported() -> list[dict[str, str]]:
    """Return the rows of `LiteLLM_SpendLogs`."""
    return list(csv.DictReader(io.StringIO(table())))


def table() -> str:
    """Return the rows as CSV with a header."""
    return _MOMENT.sub(_moved, (RECORDED / "spendlogs__1.109.1__export.csv").read_text())


def _moved(found: re.Match[str]) -> str:
    """Return the moved time in the same format, with the same number of decimals."""
    moment = datetime.fromisoformat(found[0]) + _MOVED
    return moment.strftime("%Y-%m-%d %H:%M:%S") + (found[1] or "")
