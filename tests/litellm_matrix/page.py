"""docs/litellm-versions.md and the doctor's table, generated from the recorded results."""

import itertools
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import tests.litellm_matrix.run  # noqa: F401  # registers the scenarios
from streams.core.metering.decisions import BILLED
from tests.litellm_matrix.results import TOLERANCE, differences_of_calls, numbers, recorded, versions
from tests.litellm_matrix.scenario import SCENARIOS
from tests.litellm_matrix.words import CHAPTERS, HEAD, NOT_POSSIBLE, NOTES

_ROOT = Path(__file__).parents[2]
PAGE = _ROOT / "docs" / "litellm-versions.md"
TABLE = _ROOT / "connectors" / "litellm" / "known_versions.json"

Results = dict[str, dict[str, dict[str, Any]]]


def all_recorded() -> Results:
    """All results, by version and scenario."""
    return {version: recorded(version) for version in versions()}


def impossible(version: str, name: str) -> str:
    """Why a scenario cannot be run on a version; `""` = it can."""
    for (known, until), why in NOT_POSSIBLE.items():
        if known == name and (until == "all" or numbers(version) <= numbers(until)):
            return why
    return ""


def verdict(result: Mapping[str, Any]) -> str:
    """`as owed`, `less` or `more`."""
    apart = Decimal(result["billed"]) - Decimal(result["owed"])
    return "as owed" if abs(apart) <= TOLERANCE else "less" if apart < 0 else "more"


def _amount(text: str) -> str:
    return f"{Decimal(text).quantize(Decimal('0.01')):f}"


def _cell(version: str, name: str, result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "not tried"
    if impossible(version, name):
        return "not possible"
    if verdict(result) == "as owed":
        return _amount(result["billed"])
    reported = {call["decision"] for call in result["calls"]} - BILLED
    why = "" if any(call["decision"] in BILLED for call in result["calls"]) else _why_nothing(reported)
    return f"**{_amount(result['billed'])}** of {_amount(result['owed'])}{why}"


def _why_nothing(decisions: set[str]) -> str:
    return f", {' and '.join(sorted(decisions))}" if decisions else ", nothing arrives"


def _table(chapter: str, results: Results) -> list[str]:
    names = [one.name for one in SCENARIOS.values() if one.chapter == chapter]
    lines = [f"| scenario | what happens | {' | '.join(results)} |", "|---|---|" + "---|" * len(results)]
    for name in names:
        cells = [_cell(version, name, found.get(name)) for version, found in results.items()]
        lines.append(f"| `{name}` | {SCENARIOS[name].what} | {' | '.join(cells)} |")
    return lines


def _client(results: Results, name: str) -> str:
    newest = results[[*results][-1]].get(name)
    return ", ".join(dict.fromkeys(newest["client"])) if newest else ""


def _customers(results: Results, name: str) -> str:
    newest = results[[*results][-1]].get(name)
    found = dict.fromkeys(f"`{call.get('customer', '')}`" for call in newest["calls"]) if newest else {}
    return ", ".join(found) or "nothing"


def _details(results: Results) -> list[str]:
    """What the newest version reports about each scenario."""
    lines = [
        "| scenario | the client got | the provider was asked | charged | arrives, and is decided | customer | `id` is |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for name, result in results[[*results][-1]].items():
        calls = result["calls"]
        kinds = list(dict.fromkeys(f"`{c.get('call_type', '')}` {c.get('status', '')}: {c['decision']}" for c in calls))
        counted = [f"{kind} ({_count(calls, kind)}×)" if _count(calls, kind) > 1 else kind for kind in kinds]
        ids = ", ".join(dict.fromkeys(str(call.get("id", "")) for call in calls)) or "-"
        lines.append(
            f"| `{name}` | {_client(results, name)} | {result['provider_asked']}× | {_amount(result['charged'])} | "
            f"{'; '.join(counted) or 'nothing'} | {_customers(results, name)} | {ids} |"
        )
    return lines


def _count(calls: list[dict[str, Any]], kind: str) -> int:
    return sum(f"`{c.get('call_type', '')}` {c.get('status', '')}: {c['decision']}" == kind for c in calls)


def _changes(results: Results) -> list[str]:
    """The scenarios whose meaning changed from one recorded version to the next."""
    lines = []
    ordered = [*results]
    for before, after in itertools.pairwise(ordered):
        lines += [f"### {before} to {after}", ""]
        for name in SCENARIOS:
            was, is_now = results[before].get(name), results[after].get(name)
            if was is None or is_now is None or impossible(before, name) or impossible(after, name):
                continue
            found = list(dict.fromkeys(differences_of_calls(was["calls"], is_now["calls"])))
            found = [each for each in found if ": call_id: none" not in each]
            if found:
                lines.append(f"- `{name}`: {'; '.join(found[:4])}{' …' if len(found) > 4 else ''}")
        lines.append("")
    return lines


def page(results: Results | None = None) -> str:
    """docs/litellm-versions.md."""
    results = all_recorded() if results is None else results
    lines = [HEAD.format(count=len(SCENARIOS), versions=", ".join(results), newest=[*results][-1])]
    for chapter, title in CHAPTERS.items():
        lines += [f"## {title}", "", *_table(chapter, results), ""]
        lines += [f"- `{name}`: {text}" for name, text in NOTES.items() if SCENARIOS[name].chapter == chapter]
        lines.append("")
    gone = [
        f"- `{name}`, {'all versions' if until == 'all' else f'up to {until}'}: {why}"
        for (name, until), why in NOT_POSSIBLE.items()
    ]
    if gone:
        lines += ["## Not possible", "", *gone, ""]
    lines += [f"## What {[*results][-1]} reports", "", *_details(results), ""]
    lines += ["## What changed from version to version", "", *_changes(results)]
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip("\n") + "\n"


def table(results: Results | None = None) -> str:
    """connectors/litellm/known_versions.json."""
    whole: dict[str, Any] = {}
    for version, found in (all_recorded() if results is None else results).items():
        possible = {
            name: result for name, result in found.items() if name in SCENARIOS and not impossible(version, name)
        }
        by = {name: verdict(result) for name, result in possible.items()}
        whole[version] = {
            "kinds": len(possible),
            "less": {name: SCENARIOS[name].what for name, what in by.items() if what == "less"},
            "more": {name: SCENARIOS[name].what for name, what in by.items() if what == "more"},
        }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
