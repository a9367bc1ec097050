"""An org takes over a user's mappings: from the earliest possible time on no mapping names the user, and before it
nothing changes.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.customers import CustomerRecord, MappingVersion
from schemas.errors import Rejected
from schemas.moments import SECOND_US
from streams.core.mapping.reassign import paid_until, repointing
from streams.core.mapping.set_mapping import REQUESTED, set_mapping
from tests.support.payers import payer

OLD, NEW, OTHER = "user_1", "org_1", "org_2"
NOW, LEAD = 100 * SECOND_US + 7, 5 * SECOND_US
EARLIEST = 106 * SECOND_US

VERSION = st.builds(
    MappingVersion,
    st.integers(80, 130).map(lambda second: second * SECOND_US),
    st.sampled_from([OLD, OLD, OTHER]),
    st.just("tenant"),
    is_active=st.booleans(),
    external_subscription_id=st.sampled_from(["", "sub"]),
    id_kind=st.sampled_from(["", "team"]),
)
RECORD = st.lists(VERSION, min_size=1, max_size=6, unique_by=lambda version: version.effective_from).map(
    lambda versions: CustomerRecord("c", tuple(sorted(versions, key=lambda one: one.effective_from)), 0, 0)
)


def repointed(record: CustomerRecord, begins_us: int = 0) -> CustomerRecord:
    """Change the mapping as the migration does: repeat the request until no further one is needed."""
    for _ in range(4):
        requests = repointing(record, OLD, NEW, EARLIEST, begins_us)
        if not requests:
            return record
        for request in requests:
            record = set_mapping(record, request, NOW, LEAD)
    raise AssertionError("there is always more to ask for")


@settings(max_examples=500)
@given(RECORD, st.sampled_from([0, 90, 106, 110, 125]))
def test_from_the_earliest_time_on_the_org_pays_and_before_it_the_earlier_payer(
    record: CustomerRecord, second: int
) -> None:
    """No other usage moves, and none that may be decided already."""
    begins = second * SECOND_US
    after = repointed(record, begins)
    for at in range(60 * SECOND_US, 150 * SECOND_US, SECOND_US // 2):
        before = payer(record, at, EARLIEST - 1)
        if at < max(EARLIEST, begins):
            assert payer(after, at, EARLIEST - 1) == before, at // SECOND_US
        elif (before := payer(record, at)) != OLD:
            assert payer(after, at) == before, at // SECOND_US
        else:
            assert payer(after, at) == NEW, at // SECOND_US


@given(RECORD)
def test_everything_except_the_payer_is_kept(record: CustomerRecord) -> None:
    """Plan, kind and tenant stay; a named subscription was the user's and is removed."""
    for request in repointing(record, OLD, NEW, EARLIEST):
        at = request.effective_from or EARLIEST
        was = [version for version in record.versions if version.effective_from <= at] or list(record.versions[:1])
        assert (request.billing_plan, request.is_active, request.id_kind) == (
            was[-1].billing_plan,
            was[-1].is_active,
            was[-1].id_kind,
        )
        assert (request.lago_organization_id, request.external_subscription_id) == ("tenant", "")


@given(RECORD)
def test_no_request_comes_too_early(record: CustomerRecord) -> None:
    for request in repointing(record, OLD, NEW, EARLIEST):
        try:
            record = set_mapping(record, request, NOW, LEAD)
        except Rejected as error:
            raise AssertionError(error.reason) from error


@settings(max_examples=300)
@given(RECORD)
def test_after_the_given_end_the_user_pays_for_nothing(record: CustomerRecord) -> None:
    """Before that time the user's subscription must not be ended, or usage would be lost."""
    until = paid_until(record, OLD)
    moments = range(60 * SECOND_US, 150 * SECOND_US, SECOND_US)
    if until is None:
        assert record.versions[-1].lago_customer_id == OLD
        return
    assert all(payer(record, at) != OLD for at in moments if at >= until)
    assert (until == 0) is (all(version.lago_customer_id != OLD for version in record.versions))


def test_a_version_of_another_org_that_names_the_users_subscription_counts_too() -> None:
    versions = (
        MappingVersion(80 * SECOND_US, OTHER, "t", external_subscription_id="sub"),
        MappingVersion(90 * SECOND_US, NEW, "t"),
    )
    record = CustomerRecord("c", versions, 0, 0)
    assert (paid_until(record, OLD), paid_until(record, OLD, frozenset({"sub"}))) == (0, 90 * SECOND_US)


def test_a_deleted_mapping_needs_no_request() -> None:
    versions = (
        MappingVersion(80 * SECOND_US, OLD, "t"),
        MappingVersion(90 * SECOND_US, OLD, "t", is_active=False, deleted=True),
    )
    record = CustomerRecord("c", versions, 0, 0)
    assert repointing(record, OLD, NEW, EARLIEST) == []
    assert paid_until(record, OLD) == 90 * SECOND_US


def test_the_new_org_gets_every_other_field_of_the_version() -> None:
    text = dict.fromkeys(set(REQUESTED) - {"is_active"}, "text") | {"lago_customer_id": OLD}
    version = MappingVersion(**text, is_active=False, effective_from=90 * SECOND_US)  # type: ignore[arg-type]
    [request] = repointing(CustomerRecord("c", (version,), 0, 0), OLD, NEW, EARLIEST)
    differing = {name for name in REQUESTED if getattr(request, name) != getattr(version, name)}
    assert differing == {"lago_customer_id", "external_subscription_id"}
