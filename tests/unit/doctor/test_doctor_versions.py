"""What the doctor reports about a LiteLLM version: tested, near a tested one, or unknown; and what a later version
improves.
"""

import pytest

from connectors.doctor.catalogue import KINDS, Severity
from connectors.doctor.version_rules import judge_version
from connectors.litellm import known_versions
from connectors.litellm.known_versions import TriedVersion

TRIED = {
    "1.81.16": TriedVersion(
        60, {"cut": "a stream that is cut", "kill": "a killed proxy"}, {"left": "a client that leaves"}
    ),
    "1.96.2": TriedVersion(60, {"cut": "a stream that is cut", "kill": "a killed proxy", "tier": "a tier"}, {}),
    "1.110.2": TriedVersion(60, {"kill": "a killed proxy"}, {}),
}


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other versions than those in the recorded table."""
    monkeypatch.setattr(known_versions, "tried", lambda: TRIED)
    monkeypatch.setattr("connectors.doctor.version_rules.tried", lambda: TRIED)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.110.2", {"version_known": "60 kinds of calls: 59 are billed as owed; not: a killed proxy."}),
        (
            "1.81.16",
            {
                "version_loses": "LiteLLM 1.81.16 reports less than is owed of: a stream that is cut. 1.110.2 does not.",
                "version_exceeds": "LiteLLM 1.81.16 reports more than is owed of: a client that leaves. 1.110.2 does not.",
                "version_known": "57 are billed as owed",
            },
        ),
        (
            "1.81.3",
            {
                "version_loses": "a stream that is cut",
                "version_exceeds": "",
                "version_unknown": "1.81.16, of the same release line, was.",
            },
        ),
        (
            "1.90.0",
            {
                "version_loses": "1.81.16 and 1.96.2 report less",
                "version_unknown": "1.81.16 before it and 1.96.2 after it were.",
            },
        ),
        ("1.111.0rc1", {"version_unknown": "it is newer than 1.110.2, the newest that was."}),
        (
            "1.50.0",
            {
                "version_loses": "",
                "version_exceeds": "",
                "version_unknown": "it is older than 1.81.16, the oldest that was.",
            },
        ),
        ("nightly", {}),
        (None, {}),
    ],
)
def test_every_version_gets_the_finding_that_fits(version: str | None, said: dict[str, str]) -> None:
    found = {finding.code: finding.sentence for finding in judge_version(version)}
    assert found.keys() == said.keys()
    for code, words in said.items():
        assert words in found[code]


def test_a_version_that_loses_or_doubles_money_is_severe_and_an_unknown_one_is_not() -> None:
    assert KINDS["version_loses"].severity is Severity.MONEY_LOST
    assert KINDS["version_exceeds"].severity is Severity.MONEY_DOUBLED
    assert KINDS["version_unknown"].severity is Severity.DEGRADED
    assert KINDS["version_known"].severity is Severity.OK
    assert [finding.code for finding in judge_version("1.110.2")] == ["version_known"]
