"""What this source promises to others still holds what the last release promised (docs/compatibility.md)."""

import re

import pytest

from tests.contract.compatibility.breaks import CHANGELOG, Json, open_breaks
from tests.contract.compatibility.current import CONTRACTS, contracts
from tests.contract.compatibility.recorded import FOLDER, latest, read
from tests.contract.compatibility.rules import RULES, breaks_between


@pytest.fixture(scope="module")
def present() -> dict[str, Json]:
    return contracts()


def test_nothing_breaks_that_the_changelog_does_not_announce(present: dict[str, Json]) -> None:
    breaks = open_breaks(breaks_between(read(latest()), present), CHANGELOG.read_text(encoding="utf-8"))
    assert not breaks, "\n\n".join(one.sentence() for one in breaks)


def test_every_contract_has_its_rules_and_is_recorded() -> None:
    assert CONTRACTS.keys() == RULES.keys() == read(latest()).keys()


def test_every_release_has_recorded_its_contracts() -> None:
    """`python -m tests.contract.compatibility --record` does it."""
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(released) <= {path.name for path in FOLDER.iterdir()}


def test_there_is_much_to_keep(present: dict[str, Json]) -> None:
    assert len(present["topics"]["topics"]) >= 12
    assert len(present["http"]["paths"]) > 40
    assert len(present["metrics"]) > 60
    assert len(present["settings"]) > 70
    assert len(present["commands"]) > 40
    assert sum(map(len, present["reasons"].values())) > 150
