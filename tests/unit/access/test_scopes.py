"""Renamed scopes: a key that was created under the old name keeps its rights."""

from datetime import UTC, datetime

import pytest

from connectors.access import key_store
from connectors.access.scopes import FORMER, SCOPES, current_scopes

OLD = {"calls:old": "usage:write"}


def test_the_old_name_of_a_scope_is_read_as_the_new_name() -> None:
    assert current_scopes(["calls:old", "orgs:read"], OLD) == {"usage:write", "orgs:read"}


def test_a_stored_key_keeps_its_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_store, "current_scopes", lambda stored: current_scopes(stored, OLD))
    row = {
        "key_id": "k",
        "hash": b"",
        "name": "n",
        "scopes": ["calls:old"],
        "orgs": None,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "created_by": "ada",
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
        "rotated_from": None,
        "customer_prefixes": None,
    }
    assert key_store._key(row).scopes == {"usage:write"}


def test_every_new_name_is_a_scope_and_no_old_name_is() -> None:
    assert set(FORMER.values()) <= set(SCOPES)
    assert not set(FORMER) & set(SCOPES)
    assert current_scopes(FORMER) == frozenset(FORMER.values())
