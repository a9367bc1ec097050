"""Held usage that needs a person's decision is listed by reason and org, the largest amount first; other held usage is
released without help.
"""

from decimal import Decimal

from connectors.operations.unplaceable_usage import Misdirected, lines, note
from schemas.ledger import Window
from schemas.moments import SECOND_US
from tests.support.calls import NOON


def window(held: str, org: str, usd: str) -> Window:
    one = Window(7, 9, "acme", "user", org, "", held, "m", "p", (), NOON, SECOND_US, NOON, NOON)
    one.cost = Decimal(usd)
    return one


def test_usage_that_needs_a_person_is_summed_by_reason_and_org() -> None:
    found: Misdirected = {}
    for one in (
        window("no_charge", "org-a", "1.5"),
        window("no_charge", "org-a", "0.5"),
        window("ambiguous", "org-b", "7"),
        window("no_mapping", "", "100"),
        window("", "org-a", "9"),
    ):
        note(found, one)
    assert lines(found) == ["7 USD of org-b are held: ambiguous", "2 USD of org-a are held: no_charge"]
