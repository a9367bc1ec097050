"""Compares the rights of the principals in Kafka with the rights that the roles need (connectors/kafka/acls.py); pure.

A right is one access-control list (ACL) as Kafka stores it. Kafka's rules: a denial overrides every permission; `All`
means every operation; Read, Write, Delete and Alter imply Describe; AlterConfigs implies DescribeConfigs
(https://kafka.apache.org/documentation/#security_authz_cli, "Operations in Kafka").
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from shlex import quote
from typing import Final

from connectors.kafka.acls import CLUSTER, DESCRIBE, DESCRIBE_CONFIGS, ROLES, Acl, principal_of

ANY_NAME: Final = "*"
ANY_HOST: Final = "*"
_EVERYBODY: Final = "User:*"
_ALL: Final = "All"
_IMPLIED_BY: Final = {
    DESCRIBE: frozenset({"Read", "Write", "Delete", "Alter"}),
    DESCRIBE_CONFIGS: frozenset({"AlterConfigs"}),
}


@dataclass(frozen=True, slots=True)
class Right:
    """One ACL of a principal.

    Fields:
        principal: Kafka's name of the account, such as `User:meterbridge-meter` or `User:CN=meterbridge-meter`.
        resource: as in `Acl`, or another type of resource, which Meterbridge never uses.
        name: name of the resource, or the beginning of names if `prefixed`; `*` = every resource.
        operation: Kafka's name of the operation.
        host: host from which the principal may connect; `*` = any.
        denied: whether the ACL is a denial, which overrides every permission.
    """

    principal: str
    resource: str
    name: str
    operation: str
    prefixed: bool = False
    host: str = ANY_HOST
    denied: bool = False

    def sentence(self) -> str:
        """Return the right in words, without the principal: `Write on topic billing.lago.events`."""
        what = f"every {self.resource} that begins with" if self.prefixed else self.resource
        where = "" if self.host == ANY_HOST else f" from {self.host}"
        return f"{self.operation} on {what} {self.name}{where}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison, sorted: rights that are needed and stored, needed and not stored, and stored and not
    needed.
    """

    existing: tuple[Right, ...]
    missing: tuple[Right, ...]
    extra: tuple[Right, ...]


def rights_of(entries: Iterable[Acl], pattern: str) -> list[Right]:
    """Return the rights that the roles need, for the principals of `pattern` (`principal_of`), in order."""
    return [
        Right(principal_of(pattern, acl.role), acl.resource, acl.name, acl.operation, acl.prefixed) for acl in entries
    ]


def compared(wanted: Collection[Right], stored: Iterable[Right], pattern: str) -> Comparison:
    """Compare the rights one by one. Stored rights of other principals do not count as extra."""
    ours = {principal_of(pattern, role) for role in ROLES}
    found = {right for right in stored if right.principal in ours}
    parts = ({*wanted} & found, {*wanted} - found, found - {*wanted})
    return Comparison(*(tuple(sorted(part, key=_order)) for part in parts))


def lacking(wanted: Iterable[Right], stored: Collection[Right]) -> list[Right]:
    """Return, sorted, the rights that Kafka would refuse: no stored right covers them, or a stored right denies them."""
    return sorted((right for right in wanted if not _granted(right, stored)), key=_order)


def _granted(wanted: Right, stored: Collection[Right]) -> bool:
    covering = [right for right in stored if _about(right, wanted)]
    # A denial of a part of a prefix, or for one host, counts as well, because Kafka would refuse some use of the right.
    if any(right.denied and right.operation in (wanted.operation, _ALL) for right in covering):
        return False
    enough = {wanted.operation, _ALL, *_IMPLIED_BY.get(wanted.operation, ())}
    return any(
        not right.denied and right.operation in enough and right.host == ANY_HOST and _contains(right, wanted)
        for right in covering
    )


def _about(stored: Right, wanted: Right) -> bool:
    if stored.principal not in (wanted.principal, _EVERYBODY) or stored.resource != wanted.resource:
        return False
    return _contains(stored, wanted) or (stored.denied and wanted.prefixed and stored.name.startswith(wanted.name))


def _contains(stored: Right, wanted: Right) -> bool:
    """Return whether `stored` names every resource that `wanted` names."""
    if stored.prefixed:
        return wanted.name.startswith(stored.name)
    return stored.name == ANY_NAME or (stored.name == wanted.name and not wanted.prefixed)


def _order(right: Right) -> tuple[str, ...]:
    return (right.principal, right.resource, right.name, right.operation, str(right.prefixed), right.host)


def lines_of_rights(rights: Iterable[Right], action: str = "--add") -> Iterator[str]:
    """Return the arguments of `kafka-acls.sh`: one line per principal and resource, in the order of `rights`.

    Args:
        action: `--add` or `--remove`.
    """
    grouped: dict[Right, list[str]] = {}
    for right in rights:
        grouped.setdefault(replace(right, operation=""), []).append(right.operation)
    for right, operations in grouped.items():
        kind = "deny" if right.denied else "allow"
        words = [f"{action} --{kind}-principal {quote(right.principal)}"]
        words += [f"--{kind}-host {quote(right.host)}"] if right.host != ANY_HOST else []
        words += [f"--operation {operation}" for operation in operations]
        words.append(f"--{right.resource}" if right.resource == CLUSTER else f"--{right.resource} {quote(right.name)}")
        words += ["--resource-pattern-type prefixed"] if right.prefixed else []
        yield " ".join(words)
