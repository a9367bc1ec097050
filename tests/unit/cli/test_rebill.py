"""`meterbridge lago rebill`: what a person may decide."""

from connectors.cli.lago import decided


def test_a_person_decides_about_what_is_unclear_and_not_about_what_is_still_arriving() -> None:
    named = {"a": "maybe_invoiced", "b": "no_last_invoice", "c": "too_many_events", "d": "", "e": "still_arriving"}
    assert decided(named) == {"a": "", "b": "", "c": "", "d": "", "e": "still_arriving"}
