"""What the doctor reports about stored provider keys: which must be replaced or encrypted again, and which secrets they
need.
"""

from datetime import UTC, datetime

import pytest

from connectors.access.provider_keys.store import SecretTotals
from connectors.doctor.catalogue import BY_SUBJECT, Finding
from connectors.doctor.provider_key_rules import findings

AT = datetime(2026, 11, 20, tzinfo=UTC)
NEW, OLD, STRANGE = "new", "old", "strange"
CASES: list[tuple[list[SecretTotals], dict[str, str]]] = [
    ([], {}),
    ([SecretTotals(NEW, 3, 0, AT)], {}),
    ([SecretTotals(NEW, 3, 2, AT)], {"provider_keys_due": "2 of 3"}),
    ([SecretTotals(NEW, 3, 0, AT), SecretTotals(OLD, 4, 0, AT)], {"provider_keys_old_secret": "4 provider keys"}),
    ([SecretTotals(STRANGE, 5, 0, AT)], {"provider_keys_unreadable": "5 provider keys"}),
]


@pytest.mark.parametrize(("totals", "expected"), CASES)
def test_expired_keys_and_old_or_missing_secrets_are_reported(
    totals: list[SecretTotals], expected: dict[str, str]
) -> None:
    found: dict[str, Finding] = {one.code: one for one in findings(totals, [NEW, OLD])}
    assert found.keys() == expected.keys()
    assert all(part in found[code].sentence for code, part in expected.items())


def test_every_code_about_provider_keys_has_a_case() -> None:
    assert set().union(*(expected for _, expected in CASES)) == BY_SUBJECT["provider_keys"].keys()
