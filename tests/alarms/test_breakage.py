"""Each alarm has a fault in the trial, or a reason why it has none; and recorded results are among the declared ones."""

from tests.alarms.breakage import CONSEQUENCES, FAULTS, NOT_BROKEN
from tests.alarms.record import Rung, known, summary_lines
from tests.alarms.rules import ROOT, alerts

NAMES = [alert.name for alert in alerts()]


def test_each_alarm_has_a_fault_or_a_reason_and_not_both() -> None:
    assert sorted([*FAULTS, *NOT_BROKEN]) == sorted(NAMES)


def test_declared_consequences_are_existing_alarms_with_a_cause() -> None:
    assert CONSEQUENCES.keys() <= FAULTS.keys()
    for others in CONSEQUENCES.values():
        assert others.keys() <= set(NAMES)
        assert all(len(why) > 20 for why in others.values())


def test_an_alarm_that_cannot_be_tested_is_on_the_page_with_its_cause() -> None:
    page = (ROOT / "docs" / "alarms.md").read_text("utf-8")
    assert all(f"| `{name}` | {why} |" in page for name, why in NOT_BROKEN.items())


def test_every_recorded_alarm_fired_alone_or_with_declared_consequences() -> None:
    """`make alarms-trial ARGS="--record NAME"` records it. Every alarm has its record."""
    assert known().keys() == FAULTS.keys()
    for name, rung in known().items():
        assert name in FAULTS
        assert set(rung.others) <= CONSEQUENCES.get(name, {}).keys(), name


def test_the_end_of_a_trial_names_alarms_that_did_not_fire_or_have_no_fault() -> None:
    first, second, *others = NAMES
    lines, complete = summary_lines(
        {first: Rung(1, [])}, [first, second], [first, second], dict.fromkeys(others, "why")
    )
    assert complete
    assert lines[0] == f"did not ring alone: {second}"
    assert f"cannot be broken here: {others[0]}: why" in lines
    lines, complete = summary_lines([first], [first], [first], dict.fromkeys(others, "why"))
    assert not complete
    assert lines[-1] == f"has neither a fault nor a reason: {second}"
