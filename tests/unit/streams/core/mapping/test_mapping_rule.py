"""Who pays: versions by end time, inactive versions, id kinds, orgs and their periods."""

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from streams.core.mapping.held_reasons import INACTIVE, NO_MAPPING, NO_SUBSCRIPTION, WRONG_CURRENCY, WRONG_KIND
from streams.core.mapping.resolve import resolve


def record(*versions: MappingVersion) -> CustomerRecord:
    return CustomerRecord("c", versions, 0, 0)


def version(at: int, subscription: str = "s", **fields: object) -> MappingVersion:
    return MappingVersion(at, "org", "tenant", external_subscription_id=subscription, **fields)  # type: ignore[arg-type]


def test_the_end_time_decides_which_version_applies() -> None:
    two = record(version(100, "old"), version(200, "new"))
    assert [resolve(two, at, "user", {}).subscription for at in (100, 199, 200, 900)] == ["old", "old", "new", "new"]


def test_the_first_version_also_covers_all_time_before_it() -> None:
    assert resolve(record(version(100)), 5, "user", {}).subscription == "s"


def test_an_unknown_customer_is_held() -> None:
    assert resolve(None, 5, "user", {}).held == NO_MAPPING


def test_a_deleted_customer_is_held_like_one_that_was_never_mapped() -> None:
    versions = (version(100, "a"), version(200, "a", is_active=False, deleted=True))
    assert resolve(record(*versions), 250, "user", {}).held == NO_MAPPING
    assert resolve(record(*versions), 199, "user", {}).subscription == "a"


def test_an_inactive_version_is_covered_by_the_next_active_version() -> None:
    versions = (version(100, "a"), version(200, "b", is_active=False))
    assert resolve(record(*versions), 250, "user", {}).held == INACTIVE
    assert resolve(record(*versions, version(300, "c")), 250, "user", {}).subscription == "c"


def test_a_mapping_may_name_the_kind_of_id_it_matches() -> None:
    only_users = record(version(0, id_kind="user"))
    assert resolve(only_users, 5, "end_user", {}).held == WRONG_KIND
    assert resolve(only_users, 5, "user", {}).subscription == "s"


def test_a_mapping_without_a_subscription_uses_the_orgs_period() -> None:
    org = OrgRecord("org", periods=(Period("first", 10, 20), Period("second", 20)))
    plain = record(version(0, ""))
    assert [resolve(plain, at, "user", {"org": org}).subscription for at in (5, 10, 19, 20)] == [
        "first",
        "first",
        "first",
        "second",
    ]
    assert resolve(plain, 5, "user", {}).held == NO_SUBSCRIPTION
    assert resolve(plain, 5, "user", {"org": OrgRecord("org")}).held == NO_SUBSCRIPTION


def test_an_org_billed_in_another_currency_is_held() -> None:
    euro = OrgRecord("org", currency="EUR", periods=(Period("s", 0),))
    assert resolve(record(version(0)), 5, "user", {"org": euro}).held == WRONG_CURRENCY
