"""`make chart-test`: the chart's Kafka settings equal those in the code."""

import pytest

from connectors.kafka.acls import CLUSTER_NAME, READS, acls
from deploy.helm.kafka_files import ACCOUNTS
from schemas.topics import CATALOGUE, TopicNames, has_right_count, partition_count, topic_config
from streams.components import Components
from tests.chart.rendering import Manifest, component, container, of_kind, pods, rendered, variables

NAMES = TopicNames.with_prefix("eu.")
FIELDS = {getattr(NAMES, field): field for field in TopicNames.__dataclass_fields__}


def group(role: str, prefix: str) -> str:
    """The consumer group as in a worker (connectors/processes/worker_parts.py)."""
    created = Components.__new__(Components)
    object.__setattr__(created, "group_prefix", prefix)
    return created.group(role)


@pytest.mark.parametrize(("name", "prefix", "topics"), [("keda", "meterbridge-", ""), ("strimzi", "eu.eu-1-", "eu.")])
def test_keda_scales_by_the_group_and_a_topic_of_the_role(name: str, prefix: str, topics: str) -> None:
    scaled = of_kind(rendered(name), "ScaledObject")
    assert scaled
    known = {getattr(TopicNames.with_prefix(topics), field): field for field in FIELDS.values()}
    for one in scaled:
        role = component(one)
        [trigger] = one["spec"]["triggers"]
        assert trigger["metadata"]["consumerGroup"] == group(role, prefix)
        assert known[trigger["metadata"]["topic"]] in READS[role]
        [topic] = [topic for topic in CATALOGUE if topics + topic.name == trigger["metadata"]["topic"]]
        partitions = int(variables(pods(rendered(name))[role])["KAFKA_PARTITIONS"])
        assert (
            1 <= one["spec"]["minReplicaCount"] <= one["spec"]["maxReplicaCount"] <= partition_count(topic, partitions)
        )
        [account] = [auth for auth in of_kind(rendered(name), "TriggerAuthentication") if component(auth) == role]
        assert trigger["authenticationRef"]["name"] == account["metadata"]["name"]
        [entry] = account["spec"]["env"]
        assert entry["name"] in variables(pods(rendered(name))[role])
        assert entry["containerName"] == container(pods(rendered(name))[role])["name"]


def test_strimzi_creates_the_topics_of_the_catalogue_with_their_settings() -> None:
    created = {one["spec"]["topicName"]: one for one in of_kind(rendered("strimzi"), "KafkaTopic")}
    assert created.keys() == {f"eu.{topic.name}" for topic in CATALOGUE}
    for topic in CATALOGUE:
        spec = created[f"eu.{topic.name}"]["spec"]
        assert (spec["partitions"], spec["replicas"]) == (partition_count(topic, 6), 3)
        assert spec["config"] == topic_config(topic, 3)
    grown = of_kind(rendered("strimzi", "kafka.partitions=12", "kafka.partitionsAtFirst=6"), "KafkaTopic")
    counts = {one["spec"]["topicName"]: one["spec"]["partitions"] for one in grown}
    assert all(has_right_count(topic, counts[f"eu.{topic.name}"], 12) for topic in CATALOGUE)
    assert [counts[f"eu.{name}"] for name in ("litellm.usage.raw", "billing.customers", "billing.receipts")] == [
        12,
        6,
        6,
    ]
    assert created["eu.billing.rates"]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    single = of_kind(rendered("strimzi", "kafka.replicationFactor=1"), "KafkaTopic")
    assert {one["spec"]["topicName"]: one["spec"]["config"] for one in single} == {
        f"eu.{topic.name}": topic_config(topic, 1) for topic in CATALOGUE
    }


def rules(user: Manifest) -> set[tuple[str, str, str, bool]]:
    """Type, name, operation and whether it is a prefix, of each right of a KafkaUser."""
    return {
        (found["type"], found.get("name", CLUSTER_NAME), operation, found.get("patternType") == "prefix")
        for rule in user["spec"]["authorization"]["acls"]
        for found in [rule["resource"]]
        for operation in rule["operations"]
    }


@pytest.mark.parametrize("name", ["strimzi", "strimzi-tls"])
def test_strimzi_gives_each_role_the_rights_that_topics_acls_prints(name: str) -> None:
    kinds = {"topic": "topic", "group": "group", "transactional-id": "transactionalId", "cluster": "cluster"}
    wanted: dict[str, set[tuple[str, str, str, bool]]] = {}
    for acl in acls(NAMES, "eu.", "eu-1"):
        wanted.setdefault(acl.role, set()).add((kinds[acl.resource], acl.name, acl.operation, acl.prefixed))
    users = {component(one): one for one in of_kind(rendered(name), "KafkaUser")}
    assert users.keys() == ACCOUNTS.keys()
    for role, user in users.items():
        assert rules(user) == wanted[ACCOUNTS[role]]
        pod, account = pods(rendered(name))[role], user["metadata"]["name"]
        if name == "strimzi":
            assert user["spec"]["authentication"] == {"type": "scram-sha-512"}
            assert variables(pod)["KAFKA_SASL_USERNAME"] == account
        else:
            assert user["spec"]["authentication"] == {"type": "tls"}
            assert certificate(pod) == (account, "user.crt", "user.key")


def certificate(pod: Manifest) -> tuple[str, str, str]:
    """Secret, key of the certificate and key of the private key that a pod presents to the brokers; its settings name
    them.
    """
    result = variables(pod)
    assert "KAFKA_SASL_USERNAME" not in result and "KAFKA_SASL_PASSWORD_FILE" not in result
    items = {
        f"/run/secrets/meterbridge/{item['path']}": (source["secret"]["name"], item["key"])
        for volume in pod["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        for item in source.get("secret", {}).get("items", [])
    }
    (shown, cert), (sealed, key) = items[result["KAFKA_SSL_CERTFILE"]], items[result["KAFKA_SSL_KEYFILE"]]
    assert shown == sealed
    return shown, cert, key


def test_each_role_presents_its_certificate_and_keda_that_of_the_role_it_scales() -> None:
    found = pods(rendered("mtls"))
    shown = {role: certificate(pod)[0] for role, pod in found.items() if role != "tables"}
    assert shown.pop("webhooks") == "kafka-ingress"
    assert shown.pop("topics") == shown.pop("tools") == "kafka-operator"
    assert set(shown.values()) == {"kafka-billing"}
    assert "KAFKA_SSL_CERTFILE" not in variables(found["tables"])
    for name, role, secret, keys in (
        ("mtls", "meter", "kafka-billing", {"cert": "tls.crt", "key": "tls.key"}),
        ("strimzi-tls", "sink", "meterbridge-sink", {"cert": "user.crt", "key": "user.key"}),
    ):
        [account] = [auth for auth in of_kind(rendered(name), "TriggerAuthentication") if component(auth) == role]
        result = {one["parameter"]: (one["name"], one["key"]) for one in account["spec"]["secretTargetRef"]}
        for parameter, key in keys.items():
            assert result[parameter][1] == key and result[parameter][0].endswith(secret)
        assert ("keyPassword" in result) is (name == "mtls")


def test_a_role_may_have_its_own_account_without_strimzi() -> None:
    found = pods(rendered("tls-sasl"))
    accounts = {role: variables(pod).get("KAFKA_SASL_USERNAME") for role, pod in found.items()}
    assert accounts["webhooks"] == "billing-ingress" and accounts["topics"] == "billing-operator"
    assert accounts["meter"] == "billing" and accounts["tables"] is None
    assert variables(found["tables"])["POSTGRES_USER"] == "owner"
    sources = [volume["projected"]["sources"] for volume in found["topics"]["spec"]["volumes"] if "projected" in volume]
    assert {source["secret"]["name"] for source in sources[0]} == {"kafka-operator", "kafka-ca"}
