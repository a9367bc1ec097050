"""The OpenAPI document declares the same reasons for refusals as docs/errors-api.md."""

import re
from pathlib import Path

import pytest

from tests.contract.compatibility.breaks import Json
from tests.contract.compatibility.current import openapi

PAGE = (Path(__file__).parents[2] / "docs" / "errors-api.md").read_text(encoding="utf-8")
STATUSES = ("402", "404", "409", "412", "422")
#: Chapters whose rows have a status: of all endpoints, and of credits.
CHAPTERS = ("What the management API answers", "What the credit endpoints say")
#: No endpoint has it: the path is none.
COMMON = {"not_found"}


@pytest.fixture(scope="module")
def declared() -> dict[str, set[str]]:
    """Return the reasons of the OpenAPI document, by status."""
    found: dict[str, set[str]] = {status: set() for status in STATUSES}
    operations: list[Json] = [one for path in openapi()["paths"].values() for one in path.values()]
    for operation in operations:
        for status in STATUSES:
            sentence = operation["responses"].get(status, {}).get("description", "")
            found[status] |= set(re.findall(r"`([a-z_]+)`", sentence)) - {"reason"}
    return found


def reasons_on_page() -> list[tuple[str, list[str]]]:
    """Each reason of the page with its status; with all statuses of its row if these are not as many as its reasons."""
    rows = []
    for chapter in CHAPTERS:
        for line in PAGE.partition(f"## {chapter}")[2].partition("\n## ")[0].splitlines():
            if line.startswith("| `"):
                cells = line.split(" | ")
                reasons, statuses = re.findall(r"`([a-z_]+)`", cells[0]), cells[1].split(", ")
                each = [[one] for one in statuses] if len(statuses) == len(reasons) else [statuses] * len(reasons)
                rows += list(zip(reasons, each, strict=True))
    return rows


def test_every_reason_of_the_page_with_such_a_status_is_declared_by_an_endpoint(declared: dict[str, set[str]]) -> None:
    wanted = [(reason, set(statuses) & set(STATUSES)) for reason, statuses in reasons_on_page()]
    assert len([one for one in wanted if one[1]]) > 30
    missing = [
        reason
        for reason, statuses in wanted
        if statuses and reason not in COMMON and not any(reason in declared[status] for status in statuses)
    ]
    assert missing == []


def test_every_declared_reason_is_on_the_page_with_its_status(declared: dict[str, set[str]]) -> None:
    statuses: dict[str, set[str]] = {}
    for reason, of_row in reasons_on_page():
        statuses.setdefault(reason, set()).update(of_row)
    for status, reasons in declared.items():
        for reason in reasons:
            assert f"| `{reason}`" in PAGE or f", `{reason}`" in PAGE, reason
            assert status in statuses.get(reason, {status}), (reason, status)


def test_endpoints_with_a_body_or_a_query_may_report_wrong_fields() -> None:
    paths = openapi()["paths"]
    for path, method in (("/customers/mapping", "post"), ("/customers/mappings", "get")):
        assert "`invalid_fields`" in paths[path][method]["responses"]["422"]["description"]
    assert "`no_mapping`" in paths["/customers/{customer_id}/mapping"]["delete"]["responses"]["404"]["description"]
