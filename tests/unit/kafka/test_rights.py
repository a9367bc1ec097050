"""When Kafka grants a right, how a deployment's rights are compared, and how they are written for Kafka's own tool."""

from dataclasses import replace
from shlex import split

import pytest

from connectors.kafka.acls import acls, principal_of
from connectors.kafka.rights import Right, compared, lacking, lines_of_rights, rights_of
from schemas.topics import TopicNames

PATTERN = "User:CN=my-{role},O=Example"
NAMES = TopicNames.with_prefix("p.")
WANTED = rights_of(acls(NAMES, "p.", "prod"), PATTERN)
METER = "User:CN=my-meter,O=Example"
READ = Right(METER, "topic", "p.raw", "Read")
DESCRIBE = replace(READ, operation="Describe")
IDS = Right(METER, "transactional-id", "p.prod-meter-", "Write", prefixed=True)


def test_the_role_replaces_the_placeholder_of_the_pattern_or_is_appended() -> None:
    assert principal_of(PATTERN, "meter") == METER
    assert principal_of("User:my-", "meter") == "User:my-meter"


def test_after_the_commands_were_run_no_right_is_missing_or_extra() -> None:
    found = compared(WANTED, WANTED, PATTERN)
    assert (set(found.existing), found.missing, found.extra) == (set(WANTED), (), ())
    assert lacking(WANTED, set(WANTED)) == []


def test_each_removed_right_is_reported() -> None:
    implied = {"Describe": {"Read", "Write"}, "DescribeConfigs": {"AlterConfigs"}}
    for right in set(WANTED):
        left = set(WANTED) - {right}
        assert compared(WANTED, left, PATTERN).missing == (right,)
        others = {other.operation for other in left if replace(other, operation=right.operation) == right}
        assert lacking(WANTED, left) == ([] if others & implied.get(right.operation, set()) else [right]), right


def test_rights_of_other_users_are_ignored_and_rights_beyond_the_needed_are_reported() -> None:
    stranger = Right("User:stranger", "topic", "p.raw", "Read")
    more = [Right(METER, "topic", "p.raw", "Delete"), replace(READ, denied=True), replace(READ, host="10.0.0.1")]
    assert compared(WANTED, [*WANTED, stranger], PATTERN).extra == ()
    assert set(compared(WANTED, [*WANTED, *more], PATTERN).extra) == set(more)


@pytest.mark.parametrize(
    ("wanted", "stored", "granted"),
    [
        (READ, replace(READ, operation="All"), True),
        (READ, replace(READ, name="*"), True),
        (READ, replace(READ, name="p.", prefixed=True), True),
        (READ, replace(READ, name="q.", prefixed=True), False),
        (READ, replace(READ, principal="User:*"), True),
        (READ, replace(READ, principal="User:meter"), False),
        (READ, replace(READ, host="10.0.0.1"), False),
        (READ, replace(READ, resource="group"), False),
        (READ, replace(READ, operation="Write"), False),
        (READ, DESCRIBE, False),
        (DESCRIBE, READ, True),
        (DESCRIBE, replace(READ, operation="AlterConfigs"), False),
        (replace(READ, operation="DescribeConfigs"), replace(READ, operation="AlterConfigs"), True),
        (IDS, replace(IDS, name="p."), True),
        (IDS, replace(IDS, name="p.prod-meter-1"), False),
        (IDS, replace(IDS, prefixed=False), False),
        (IDS, replace(IDS, name="*", prefixed=False), True),
    ],
)
def test_a_right_is_granted_by_any_right_that_covers_it(wanted: Right, stored: Right, *, granted: bool) -> None:
    assert lacking([wanted], {stored}) == ([] if granted else [wanted])


@pytest.mark.parametrize(
    ("wanted", "denial", "granted"),
    [
        (READ, replace(READ, name="p.", prefixed=True), False),
        (READ, replace(READ, operation="All", principal="User:*"), False),
        (READ, replace(READ, host="10.0.0.1"), False),
        (READ, DESCRIBE, True),
        (IDS, replace(IDS, name="p.prod-meter-3", prefixed=False), False),
        (IDS, replace(IDS, name="p.prod-sink-3", prefixed=False), True),
    ],
)
def test_a_denial_overrides_a_grant(wanted: Right, denial: Right, *, granted: bool) -> None:
    stored = {wanted, replace(denial, denied=True)}
    assert lacking([wanted], stored) == ([] if granted else [wanted])


def test_a_removal_is_written_like_the_addition() -> None:
    denial = Right("User:CN=a b", "topic", "p.raw", "Write", host="10.0.0.1", denied=True)
    [line] = lines_of_rights([denial], "--remove")
    assert split(line) == [
        *("--remove", "--deny-principal", "User:CN=a b", "--deny-host", "10.0.0.1"),
        *("--operation", "Write", "--topic", "p.raw"),
    ]
    [line] = lines_of_rights([Right("User:o", "cluster", "kafka-cluster", "Describe")])
    assert line == "--add --allow-principal User:o --operation Describe --cluster"
