"""Id prefixes of org keys: a key may map only ids with its prefixes, may grant no more, and never an id that names no
customer.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.access.keys import ApiKey, mint
from streams.core.mapping.customer_prefixes import may_adopt, prefixes_within
from tests.unit.access.test_key_store import NOW

IDS = st.text("ab", max_size=4) | st.sampled_from(["unattributed:x", "unattributed:"])
ORGS = st.none() | st.frozensets(st.sampled_from(["org_1", "org_2"]), min_size=1)
PREFIXES = st.none() | st.frozensets(st.text("ab", min_size=1, max_size=3) | st.just("unattributed:"))


@given(ORGS, PREFIXES, ORGS, PREFIXES, IDS)
def test_a_grant_of_prefixes_within_ones_own_adds_no_id(
    inner_orgs: frozenset[str] | None,
    inner: frozenset[str] | None,
    orgs: frozenset[str] | None,
    outer: frozenset[str] | None,
    customer: str,
) -> None:
    within_orgs = orgs is None or (inner_orgs is not None and inner_orgs <= orgs)
    if within_orgs and prefixes_within(inner_orgs, inner, orgs, outer) and may_adopt(inner_orgs, inner, customer):
        assert may_adopt(orgs, outer, customer)


@given(ORGS, PREFIXES)
def test_a_key_may_grant_its_own_prefixes(orgs: frozenset[str] | None, prefixes: frozenset[str] | None) -> None:
    assert prefixes_within(orgs, prefixes, orgs, prefixes)


@pytest.mark.parametrize(
    ("orgs", "prefixes", "customer", "may"),
    [
        (None, None, "anybody", True),
        (None, None, "unattributed:x", True),
        (None, {"acme-"}, "acme-1", True),
        (None, {"acme-"}, "other", False),
        (None, {"unattributed:"}, "unattributed:x", True),
        ({"org_1"}, None, "anybody", False),
        ({"org_1"}, {"acme-"}, "acme-1", True),
        ({"org_1"}, {"acme-"}, "acme", False),
        ({"org_1"}, {"acme-"}, "Acme-1", False),
        ({"org_1"}, {"u"}, "unattributed:x", False),
        ({"org_1"}, {"u"}, "ulf", True),
    ],
)
def test_which_ids_a_credential_may_map(
    orgs: set[str] | None, prefixes: set[str] | None, customer: str, may: bool
) -> None:
    given_orgs = None if orgs is None else frozenset(orgs)
    assert may_adopt(given_orgs, None if prefixes is None else frozenset(prefixes), customer) is may


def a_key(orgs: list[str] | None, prefixes: list[str] | None) -> ApiKey:
    return mint("a", ["mappings:write"], orgs, "test", NOW, None, prefixes)[0]


def test_a_key_is_within_another_only_with_its_prefixes() -> None:
    scopes, orgs = frozenset({"mappings:write"}), frozenset({"org_1"})
    assert a_key(["org_1"], ["acme-1"]).is_within(scopes, orgs, frozenset({"acme-"}))
    assert not a_key(["org_1"], ["a"]).is_within(scopes, orgs, frozenset({"acme-"}))
    assert not a_key(["org_1"], ["acme-"]).is_within(scopes, orgs, None)
    assert a_key(["org_1"], ["acme-"]).is_within(frozenset({"*"}), None, None)
    assert not a_key(None, None).is_within(scopes, None, frozenset({"acme-"}))
