"""Kafka's access-control lists: no role may do another role's work."""

from shlex import split

from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.kafka.acls import CLUSTER, OPERATOR, READS, ROLES, TOPIC, WRITES, acls
from connectors.kafka.rights import lines_of_rights, rights_of
from schemas.topics import CATALOGUE, RATES, TopicNames

NAMES = TopicNames.with_prefix("p.")
FOUND = list(acls(NAMES, "p.", "prod"))


def _writers(topic: str) -> set[str]:
    return {acl.role for acl in FOUND if (acl.resource, acl.name, acl.operation) == (TOPIC, topic, "Write")}


def test_only_roles_that_create_events_may_write_them() -> None:
    assert _writers(NAMES.events) == {"meter", "project", OPERATOR}
    assert _writers(NAMES.changelog) == {"meter", OPERATOR}
    assert _writers(NAMES.customers) == _writers(NAMES.orgs) == {"api", OPERATOR}


def test_every_role_may_describe_every_topic_and_each_topic_has_one_writer() -> None:
    """At its start a process compares all topics with the catalogue."""
    for topic in CATALOGUE:
        name = f"p.{topic.name}"
        result = {acl.role for acl in FOUND if acl.name == name and acl.operation == "DescribeConfigs"}
        assert result == set(ROLES)
        assert _writers(name) - {OPERATOR} or topic is RATES, "only commands write rate cards"
    assert set(READS) == set(WRITES) == set(ROLES) - {OPERATOR}


def test_no_right_reaches_beyond_the_prefix_and_the_deployment() -> None:
    for acl in FOUND:
        if acl.resource == CLUSTER:
            assert (acl.role, acl.operation) == (OPERATOR, "Describe"), "it reads all lists, and changes none"
            continue
        assert acl.name.startswith("p.") or acl.name == "meterbridge-operations", acl
        assert not acl.prefixed or acl.resource != TOPIC


def test_the_printed_commands_are_valid_for_kafkas_tool() -> None:
    lines = list(lines_of_rights(rights_of(FOUND, "User:CN=my ")))
    assert len(lines) == len({(acl.role, acl.resource, acl.name, acl.prefixed) for acl in FOUND})
    for line in lines:
        words = split(line)
        assert words[:2] == ["--add", "--allow-principal"] and words[2].startswith("User:CN=my ")
    result = CliRunner().invoke(app, ["topics", "acls"], env={"TOPIC_PREFIX": "p.", "DEPLOYMENT_NAME": "prod"})
    assert result.exit_code == 0
    line = next(
        line for line in result.stdout.splitlines() if "meterbridge-sink" in line and "transactional-id" in line
    )
    assert split(line)[2:] == [
        *("User:meterbridge-sink", "--operation", "Write", "--transactional-id", "p.prod-sink-"),
        *("--resource-pattern-type", "prefixed"),
    ]
