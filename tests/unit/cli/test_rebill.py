"""`meterbridge lago rebill`: which events a person may decide about."""

from connectors.cli.lago import decided


def test_a_person_may_decide_about_unclear_events_but_not_about_events_still_arriving() -> None:
    named = {"a": "maybe_invoiced", "b": "no_last_invoice", "c": "too_many_events", "d": "", "e": "still_arriving"}
    assert decided(named) == {"a": "", "b": "", "c": "", "d": "", "e": "still_arriving"}
