"""How many versions of a mapping are kept and for how long, to the microsecond; and what a change does not touch."""

from schemas.customers import CustomerRecord, MappingVersion
from schemas.errors import Rejected
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.set_mapping import (
    KEEP_US,
    KEPT_US,
    KEPT_VERSIONS,
    MAX_VERSIONS,
    EndMappingRequest,
    MappingRequest,
    end_mapping,
    forgettable,
    set_mapping,
)

NOW = 1_800_000_000 * SECOND_US
LEAD = 5 * SECOND_US


def request_for(org: str) -> MappingRequest:
    return MappingRequest("customer", org, "tenant")


def record(*versions: MappingVersion) -> CustomerRecord:
    return CustomerRecord("customer", versions, 0, 0)


def version(at_us: int, org: str = "a", *, active: bool = True, deleted: bool = False) -> MappingVersion:
    return MappingVersion(at_us, org, "tenant", is_active=active, deleted=deleted)


def test_8_versions_are_kept_for_any_time_64_for_31_days_and_any_number_for_48_hours() -> None:
    """Usage that a topic still holds is decided by its own version; that of the last 48 hours by any number of
    versions.
    """
    assert (KEPT_VERSIONS, MAX_VERSIONS, KEPT_US, KEEP_US) == (8, 64, 31 * 24 * HOUR_US, 48 * HOUR_US)


def test_the_oldest_of_nine_is_removed_once_the_next_one_covers_everything_undecided() -> None:
    for early_us, kept in ((0, 8), (1, 9)):
        second = NOW - KEPT_US + early_us
        there = [version(0, "a"), version(second, "b"), *(version(NOW - 60 * SECOND_US + n, f"o{n}") for n in range(6))]
        after = set_mapping(record(*there), request_for("new"), NOW, LEAD)
        assert len(after.versions) == kept
        assert after.versions[-1].lago_customer_id == "new"


def test_beyond_64_versions_the_oldest_are_removed_after_48_hours() -> None:
    for early_us, refused in ((0, False), (1, True)):
        second = NOW - KEEP_US + early_us
        there = [version(second - 1, "a"), version(second, "b"), *(version(NOW - 90 + n, f"o{n}") for n in range(62))]
        try:
            after = set_mapping(record(*there), request_for("new"), NOW, LEAD)
        except Rejected:
            assert refused
        else:
            assert (refused, len(after.versions), after.versions[0].lago_customer_id) == (False, MAX_VERSIONS, "b")


def test_by_default_a_request_maps_and_an_end_does_not_hide_the_mapping() -> None:
    assert MappingRequest("c", "o", "t").is_active
    assert not EndMappingRequest().deleted
    ended = end_mapping(record(version(0)), EndMappingRequest(), NOW, LEAD).versions[-1]
    assert (ended.is_active, ended.deleted) == (False, False)


def test_a_pause_that_ended_before_the_change_stays_a_pause_in_the_record() -> None:
    """Its usage already goes to the version after it: nothing has to be fixed, and the record stays true."""
    there = (version(0, "a"), version(1000 * SECOND_US, "a", active=False), version(2000 * SECOND_US, "a"))
    after = set_mapping(record(*there), request_for("b"), NOW, LEAD)
    assert after.versions[:3] == there
    assert [one.lago_customer_id for one in after.versions] == ["a", "a", "a", "b"]


def test_a_pause_that_lasts_until_the_change_stays_a_pause_whatever_was_announced() -> None:
    """The announced version has not started and pays for nothing yet: fixed to it, the pause would be billed at once."""
    there = (version(0, "a"), version(1000 * SECOND_US, "a", active=False), version(NOW + HOUR_US, "later"))
    after = set_mapping(record(*there), request_for("b"), NOW, LEAD)
    assert [(one.lago_customer_id, one.is_active) for one in after.versions] == [
        ("a", True),
        ("a", False),
        ("b", True),
        ("later", True),
    ]


def test_a_deletion_is_kept_up_to_its_last_microsecond() -> None:
    deleted = record(version(0), version(NOW, active=False, deleted=True))
    assert not forgettable(deleted, NOW)
    assert forgettable(deleted, NOW + 1)
    assert not forgettable(record(version(0), version(NOW, active=False)), NOW + 1)
