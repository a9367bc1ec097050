"""Every kind of incompatible change is found and explained; a compatible one passes."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.contract.compatibility.breaks import Break, Json, accepted, open_breaks
from tests.contract.compatibility.recorded import latest, read
from tests.contract.compatibility.rules import breaks_between, setting_breaks

OLD = read(latest())
ENRICHED = "litellm.usage.enriched"
MAPPING = "/customers/mapping"
BALANCE = "/api/v1/credits/balance"
Planted = Callable[[dict[str, Json]], Any]


def breaks_of(plant: Planted) -> list[Break]:
    new = deepcopy(OLD)
    plant(new)
    return breaks_between(OLD, new)


def record(new: dict[str, Json], name: str = "EnrichedUsage") -> Json:
    schema: Json = new["topics"]["schemas"][name]["$defs"][name]
    return schema


def body(new: dict[str, Json], method: str = "post", path: str = MAPPING) -> Json:
    reference = new["http"]["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema: Json = new["http"]["components"]["schemas"][reference.rpartition("/")[2]]
    return schema


def answer(new: dict[str, Json], method: str = "get", path: str = BALANCE) -> Json:
    schema = new["http"]["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
    found: Json = new["http"]["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def renamed(of: Json, old: str, new: str) -> None:
    of[new] = of.pop(old)


def first(of: Json) -> str:
    return next(iter(of))


#: What is planted, the subject that must be named, and a part of what is said about it.
BREAKING: dict[str, tuple[Planted, str, str]] = {
    "a topic goes": (lambda new: new["topics"]["topics"].pop(ENRICHED), f"topic {ENRICHED}", "is gone"),
    "a topic is renamed": (
        lambda new: renamed(new["topics"]["topics"], ENRICHED, "usage"),
        f"topic {ENRICHED}",
        "waits for records that never come",
    ),
    "a key changes": (
        lambda new: new["topics"]["topics"][ENRICHED].update(key="org"),
        f"topic {ENRICHED} key",
        "move to other partitions",
    ),
    "another record": (
        lambda new: new["topics"]["topics"][ENRICHED].update(value="Receipt"),
        f"topic {ENRICHED} value",
        "cannot decode",
    ),
    "a header goes": (
        lambda new: new["topics"]["topics"]["billing.lago.events"]["headers"].remove("manifest"),
        "topic billing.lago.events header manifest",
        "finds none",
    ),
    "kept for less time": (
        lambda new: new["topics"]["topics"][ENRICHED].update(retention_ms=1),
        f"topic {ENRICHED} retention",
        "is kept for 1 ms",
    ),
    "compacted": (
        lambda new: new["topics"]["topics"][ENRICHED].update(cleanup="compact"),
        f"topic {ENRICHED} cleanup",
        "misses records",
    ),
    "a field goes": (
        lambda new: record(new)["properties"].pop("model"),
        "record EnrichedUsage.model",
        "is gone",
    ),
    "a field is renamed": (
        lambda new: renamed(record(new)["properties"], "cost_usd", "cost"),
        "record EnrichedUsage.cost_usd",
        "is gone",
    ),
    "a field gets another type": (
        lambda new: record(new)["properties"]["offset"].update(type="string"),
        "record EnrichedUsage.offset",
        "may now be string",
    ),
    "a field may be null": (
        lambda new: record(new)["properties"].update(model={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        "record EnrichedUsage.model",
        "may now be null",
    ),
    "a field may be absent": (
        lambda new: record(new)["required"].remove("identity"),
        "record EnrichedUsage.identity",
        "may now be absent",
    ),
    "an absent field means something else": (
        lambda new: record(new)["properties"]["byok"].update(default=True),
        "record EnrichedUsage.byok",
        "where it is absent it was False",
    ),
    "a field of senders goes": (
        lambda new: record(new, "Call")["properties"].pop("response_cost"),
        "record Call.response_cost",
        "is no longer read",
    ),
    "a field of senders must be sent": (
        lambda new: record(new, "Call").update(required=["model"]),
        "record Call.model",
        "must now be sent",
    ),
    "a schema goes": (lambda new: new["topics"]["schemas"].pop("Receipt"), "record Receipt", "has no schema"),
    "an endpoint goes": (lambda new: new["http"]["paths"].pop(MAPPING), f"http POST {MAPPING}", "is gone"),
    "a method goes": (lambda new: new["http"]["paths"][BALANCE].pop("get"), f"http GET {BALANCE}", "404 or 405"),
    "a body's field must be sent": (
        lambda new: body(new).setdefault("required", []).append("is_active"),
        f"http POST {MAPPING} body.is_active",
        "must now be sent",
    ),
    "a body's field is unknown": (
        lambda new: body(new)["properties"].pop("is_active"),
        f"http POST {MAPPING} body.is_active",
        "is no longer read",
    ),
    "a new parameter must be sent": (
        lambda new: (
            new["http"]["paths"][BALANCE]["get"]
            .setdefault("parameters", [])
            .append({"in": "query", "name": "new", "required": True, "schema": {"type": "string"}})
        ),
        f"http GET {BALANCE} query new",
        "is new and must be sent",
    ),
    "an answer's field goes": (
        lambda new: answer(new)["properties"].pop(first(answer(new)["properties"])),
        f"http GET {BALANCE} 200",
        "is gone",
    ),
    "another status": (
        lambda new: renamed(new["http"]["paths"][BALANCE]["get"]["responses"], "200", "204"),
        f"http GET {BALANCE} 200",
        "never answered",
    ),
    "another scope": (
        lambda new: new["http"]["paths"][MAPPING]["post"].update(security=[{"bearer": ["root"]}]),
        f"http POST {MAPPING} security",
        "401 or 403",
    ),
    "a metric goes": (
        lambda new: new["metrics"].pop("failed_events_total"),
        "metric failed_events_total",
        "alarms on it never fire",
    ),
    "a metric gets another type": (
        lambda new: new["metrics"]["pending_events_total"].update(type="counter"),
        "metric pending_events_total",
        "was a gauge and is a counter",
    ),
    "a label is renamed": (
        lambda new: new["metrics"]["failed_events_total"].update(labels=["reason"]),
        "metric failed_events_total labels",
        "had the labels error_type and has reason",
    ),
    "a label's value goes": (
        lambda new: new["metrics"]["meterbridge_calls_total"]["values"]["decision"].remove("billable"),
        'metric meterbridge_calls_total{decision="billable"}',
        "never fires again",
    ),
    "a bucket goes": (
        lambda new: new["metrics"]["event_processing_duration_seconds"]["buckets"].remove("0.25"),
        "metric event_processing_duration_seconds bucket 0.25",
        "finds nothing",
    ),
    "a reason goes": (
        lambda new: new["reasons"]["dead_letters"].remove("id_conflict"),
        "reason id_conflict of dead_letters",
        "find nothing",
    ),
    "a setting goes": (lambda new: new["settings"].pop("LOG_LEVEL"), "setting LOG_LEVEL", "old_names.py"),
    "a setting has another default": (
        lambda new: new["settings"]["WINDOW_SECONDS"].update(default=30),
        "setting WINDOW_SECONDS",
        "was 60, and now is 30",
    ),
    "a setting has another type": (
        lambda new: new["settings"]["HOST"].update(type="integer"),
        "setting HOST",
        "may no longer be string",
    ),
    "a setting takes fewer values": (
        lambda new: new["settings"]["LOG_LEVEL"]["enum"].remove("DEBUG"),
        "setting LOG_LEVEL",
        "may no longer be DEBUG",
    ),
    "a setting has a closer bound": (
        lambda new: new["settings"]["BATCH_SIZE"].update(maximum=50),
        "setting BATCH_SIZE",
        "its maximum was 100 and is 50",
    ),
    "a command goes": (
        lambda new: new["commands"].pop("meterbridge held list"),
        "command meterbridge held list",
        "end with code 2",
    ),
    "an option goes": (
        lambda new: new["commands"]["meterbridge held list"].pop("--json"),
        "command meterbridge held list --json",
        "is gone",
    ),
    "an option must be given": (
        lambda new: new["commands"]["meterbridge held list"]["--match"].update(required=True),
        "command meterbridge held list --match",
        "must now be given",
    ),
    "a flag takes a value": (
        lambda new: new["commands"]["meterbridge held list"]["--json"].update(flag=False),
        "command meterbridge held list --json flag",
        "does something else",
    ),
    "a new option must be given": (
        lambda new: new["commands"]["meterbridge held list"].update(
            {"--why": {**new["commands"]["meterbridge held list"]["--match"], "names": ["--why"], "required": True}}
        ),
        "command meterbridge held list --why",
        "is new and must be given",
    ),
    "another place of an argument": (
        lambda new: new["commands"]["meterbridge import"]["argument what"].update(place=1),
        "command meterbridge import argument what place",
        "fails, or does something else",
    ),
    "a choice goes": (
        lambda new: new["commands"]["meterbridge import"]["argument what"]["choices"].remove("mappings"),
        "command meterbridge import argument what mappings",
        "no choice any more",
    ),
}
COMPATIBLE: dict[str, Planted] = {
    "a new topic": lambda new: new["topics"]["topics"].update({"new": new["topics"]["topics"][ENRICHED]}),
    "kept for longer": lambda new: new["topics"]["topics"][ENRICHED].update(retention_ms=1 << 50),
    "a new header": lambda new: new["topics"]["topics"]["billing.lago.events"]["headers"].append("new"),
    "a new optional field": lambda new: record(new)["properties"].update(new={"type": "string", "default": ""}),
    "a sender may leave a field out": lambda new: record(new, "Call")["properties"].update(new={"type": "string"}),
    "a new endpoint": lambda new: new["http"]["paths"].update({"/new": new["http"]["paths"][BALANCE]}),
    "a new optional field of a body": lambda new: body(new)["properties"].update(new={"type": "string"}),
    "a body's field need not be sent": lambda new: body(new).update(required=[]),
    "a new field of an answer": lambda new: answer(new)["properties"].update(new={"type": "string"}),
    "a way in for more": lambda new: new["http"]["paths"][MAPPING]["post"].update(security=[{}]),
    "a new metric": lambda new: new["metrics"].update(new=new["metrics"]["pending_events_total"]),
    "a new value of a label": lambda new: new["metrics"]["meterbridge_calls_total"]["values"]["decision"].append("new"),
    "a new reason": lambda new: new["reasons"]["held"].append("new"),
    "a new setting": lambda new: new["settings"].update(NEW={"type": "string", "default": ""}),
    "a wider bound": lambda new: new["settings"]["BATCH_SIZE"].update(maximum=500),
    "a further value": lambda new: new["settings"]["LOG_LEVEL"]["enum"].append("TRACE"),
    "a new command": lambda new: new["commands"].update({"meterbridge new": {}}),
    "a second name of an option": lambda new: new["commands"]["meterbridge held list"]["--json"]["names"].append("-j"),
    "a further choice": lambda new: new["commands"]["meterbridge import"]["argument what"]["choices"].append("new"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_planted_break_is_found_and_explained_with_the_next_step(name: str) -> None:
    plant, subject, words = BREAKING[name]
    breaks = [one for one in breaks_of(plant) if one.subject.startswith(subject) and words in one.sentence()]
    assert breaks, [one.sentence() for one in breaks_of(plant)]
    assert 'below "### Breaking" of the newest version in CHANGELOG.md' in breaks[0].sentence()
    assert breaks[0].effect.endswith(".")


@pytest.mark.parametrize("name", COMPATIBLE)
def test_a_compatible_change_passes(name: str) -> None:
    assert breaks_of(COMPATIBLE[name]) == []


def test_unchanged_contracts_have_no_break() -> None:
    assert breaks_of(lambda _: None) == []


def test_a_renamed_setting_may_be_removed_once_the_start_reports_its_new_name() -> None:
    new = {**OLD["settings"], "LEVEL_OF_LOGS": OLD["settings"]["LOG_LEVEL"]}
    new.pop("LOG_LEVEL")
    assert [one.subject for one in setting_breaks(OLD["settings"], new, {})] == ["setting LOG_LEVEL"]
    assert list(setting_breaks(OLD["settings"], new, {"LOG_LEVEL": "LEVEL_OF_LOGS"})) == []


def changelog(*breaking: str) -> str:
    listed = "".join(f"{line}\n" for line in breaking)
    return f"# Changelog\n\n## [0.2.0] - unreleased\n\n### Breaking\n\n{listed}\n### Added\n\n- `topic b`: new and useful.\n\n## [0.1.0] - 2026-12-01\n\n### Breaking\n\n- `topic a`: it was gone before.\n"


def test_a_break_is_accepted_by_its_line_in_the_newest_versions_list() -> None:
    breaks = [Break("topic a", "is gone", "None."), Break("topic b", "is gone", "None."), Break("topic c", "", "")]
    text = changelog("- `topic c`: read `topic d` in its place.")
    assert accepted(text) == {"topic c"}
    assert [one.subject for one in open_breaks(breaks, text)] == ["topic a", "topic b"]


def test_the_list_of_an_older_version_accepts_nothing() -> None:
    text = changelog().replace("### Breaking\n\n\n", "", 1)
    assert text.count("### Breaking") == 1
    assert accepted(text) == set()


def test_a_line_without_an_explanation_accepts_nothing() -> None:
    assert accepted(changelog("- `topic c`:")) == set()
