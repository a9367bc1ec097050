"""The contracts of this source tree are compatible with those of the last release (docs/compatibility.md)."""

import re

import pytest

from tests.contract.compatibility.breaks import CHANGELOG, Json, open_breaks
from tests.contract.compatibility.current import CONTRACTS, contracts
from tests.contract.compatibility.recorded import FOLDER, latest, read
from tests.contract.compatibility.rules import RULES, breaks_between


@pytest.fixture(scope="module")
def present() -> dict[str, Json]:
    return contracts()


def test_every_break_is_announced_in_the_changelog(present: dict[str, Json]) -> None:
    breaks = open_breaks(breaks_between(read(latest()), present), CHANGELOG.read_text(encoding="utf-8"))
    assert not breaks, "\n\n".join(one.sentence() for one in breaks)


def test_every_contract_has_its_rules_and_is_recorded() -> None:
    assert CONTRACTS.keys() == RULES.keys() == read(latest()).keys()


def test_every_release_has_recorded_its_contracts() -> None:
    """Run `python -m tests.contract.compatibility --record`."""
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(released) <= {path.name for path in FOLDER.iterdir()}


def test_the_contracts_have_enough_entries(present: dict[str, Json]) -> None:
    assert len(present["topics"]["topics"]) >= 12
    assert len(present["http"]["paths"]) > 40
    assert len(present["metrics"]) > 60
    assert len(present["settings"]) > 70
    assert len(present["commands"]) > 40
    assert sum(map(len, present["reasons"].values())) > 150
