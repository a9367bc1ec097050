"""Reads, creates and removes access-control lists (ACLs) on the brokers. The functions block, so async callers use a thread."""

import time
from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.acls import CLUSTER, GROUP, TOPIC, TRANSACTIONAL_ID
from connectors.kafka.admin import LIMIT_S, kafka_errors
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.rights import Right
from schemas.errors import TopicProblem, Unavailable

#: Kafka's resource type CLUSTER is BROKER in librdkafka: both have the number 4.
_RESOURCES: Final = {
    TOPIC: ResourceType.TOPIC,
    GROUP: ResourceType.GROUP,
    TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
    CLUSTER: ResourceType.BROKER,
}
_WORDS: Final = {kind: word for word, kind in _RESOURCES.items()}
#: Kafka's names of operations, such as `DescribeConfigs`, by librdkafka's names.
_OPERATIONS: Final = {one: one.name.title().replace("_", "") for one in AclOperation}
_NUMBERS: Final = {word: one for one, word in _OPERATIONS.items()}
_EVERYTHING: Final = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)
_DISABLED: Final = "Kafka has no authorizer: everybody may do everything, and lists cannot be stored. Set authorizer.class.name on the brokers."
_REFUSED: Final = "Kafka refuses: this account may not {}. Use an administrator's, with the right to {} on the cluster."
#: Reasons: Kafka has no authorizer; the account may not read or change ACLs.
NO_AUTHORIZER, ACLS_REFUSED = "no_authorizer", "acls_refused"


def stored_rights(kafka: KafkaConnection, limit_s: float = LIMIT_S) -> set[Right]:
    """Return all rights of all principals; none if Kafka has no authorizer.

    Raises:
        TopicProblem: `acls_refused`: the account lacks Describe on the cluster.
        Unavailable: no broker answers.
    """
    return _read(AdminClient(librdkafka_config(kafka)), limit_s)


def create_rights(kafka: KafkaConnection, rights: Iterable[Right]) -> None:
    """Create rights, and wait until the brokers list them. An existing right is not changed.

    Raises:
        TopicProblem: `no_authorizer`; or `acls_refused`: the account lacks Alter or Describe on the cluster.
        Unavailable: no broker answers; repeating is safe.
    """
    admin, wanted = AdminClient(librdkafka_config(kafka)), {*rights}
    _done(admin.create_acls([_binding(right) for right in wanted], request_timeout=LIMIT_S) if wanted else {})
    _until(lambda: wanted <= _read(admin, LIMIT_S))


def remove_rights(kafka: KafkaConnection, rights: Iterable[Right]) -> None:
    """Remove exactly these rights, and wait until the brokers do not list them. Raises: as `create_rights`."""
    admin, unwanted = AdminClient(librdkafka_config(kafka)), {*rights}
    filters = [_binding(right, AclBindingFilter) for right in unwanted]
    _done(admin.delete_acls(filters, request_timeout=LIMIT_S) if filters else {})
    _until(lambda: not unwanted & _read(admin, LIMIT_S))


def _read(admin: AdminClient, limit_s: float) -> set[Right]:
    """Read the stored rights. librdkafka returns an empty list for a refusal, so the rights of the account are read
    first.
    """
    with kafka_errors("describe the cluster"):
        cluster = admin.describe_cluster(include_authorized_operations=True, request_timeout=limit_s).result()
    allowed = {AclOperation(operation.value) for operation in cluster.authorized_operations or ()}
    if AclOperation.DESCRIBE not in allowed:
        raise TopicProblem(ACLS_REFUSED, _REFUSED.format("read access-control lists", "Describe"))
    with kafka_errors("list access-control lists"):
        found = admin.describe_acls(_EVERYTHING, request_timeout=limit_s).result()
    return {_right(binding) for binding in found}


def _done(futures: dict[Any, Any]) -> None:
    for future in futures.values():
        try:
            with kafka_errors("change access-control lists"):
                future.result()
        except TopicProblem as error:
            cause = error.__cause__
            code = cause.args[0].code() if isinstance(cause, KafkaException) else None
            if code == KafkaError.SECURITY_DISABLED:
                raise TopicProblem(NO_AUTHORIZER, _DISABLED) from error
            if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
                raise TopicProblem(ACLS_REFUSED, _REFUSED.format("change access-control lists", "Alter")) from error
            raise


def _until(reached: Any) -> None:
    """Wait until the brokers show the change. Brokers other than the controller get it a moment later."""
    deadline = time.monotonic() + LIMIT_S
    while not reached():
        if time.monotonic() > deadline:
            raise Unavailable("kafka_unavailable", "changed access-control lists do not appear on the brokers")
        time.sleep(0.05)


def _binding(right: Right, kind: type[Any] = AclBinding) -> Any:
    return kind(
        _RESOURCES[right.resource],
        right.name,
        ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
        right.principal,
        right.host,
        _NUMBERS[right.operation],
        AclPermissionType.DENY if right.denied else AclPermissionType.ALLOW,
    )


def _right(binding: AclBinding) -> Right:
    return Right(
        binding.principal,
        _WORDS.get(binding.restype, binding.restype.name.lower()),
        binding.name,
        _OPERATIONS[binding.operation],
        binding.resource_pattern_type is ResourcePatternType.PREFIXED,
        binding.host,
        binding.permission_type is AclPermissionType.DENY,
    )
