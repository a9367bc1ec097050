"""`ETag`, `If-Match` and `If-None-Match` (RFC 9110, 8.8.3 and 13.1): a client changes only the version that it has read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from connectors.http.problem import Problem

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
_ANY = "*"


def tag_of(record: msgspec.Struct) -> str:
    """Return the record's strong entity tag: the same content has the same tag in every process."""
    return f'"{sha256(msgspec.json.encode(record)).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True)
class Precondition:
    """The condition of a change.

    Fields:
        tags: the record must have one of these tags; `*` = the record must exist; None = no condition.
        absent: the record must not exist.
    """

    tags: frozenset[str] | None = None
    absent: bool = False

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Precondition":
        """Return the condition in the headers. Raises: Problem 400 `bad_precondition`: for example, If-None-Match is
        not `*`.
        """
        matching, creating = headers.get("If-Match"), headers.get("If-None-Match")
        if creating is not None and creating.strip() != _ANY:
            raise Problem(400, "bad_precondition", "If-None-Match must be * here")
        if matching is None:
            return cls(None, creating is not None)
        if matching.strip() == _ANY:
            return cls(frozenset({_ANY}), creating is not None)
        tags = [tag.strip() for tag in matching.split(",")]
        if not all(_TAG.fullmatch(tag) for tag in tags):
            raise Problem(400, "bad_precondition", "If-Match must be *, or entity tags in double quotes")
        return cls(frozenset(tags), creating is not None)

    def check(self, record: msgspec.Struct | None, *, done: bool) -> None:
        """Check that `record` may be changed.

        Args:
            record: as it is now; None = it does not exist.
            done: the record is already as the change would make it. This satisfies If-Match, so that a repeated request
                succeeds (RFC 9110, 13.1.1).

        Raises:
            Problem: 412 `exists_already`, `precondition_failed`.
        """
        if self.absent and record is not None:
            raise Problem(412, "exists_already", "it exists already; a request without If-None-Match changes it")
        if self.tags is None or done:
            return
        if record is None or (_ANY not in self.tags and tag_of(record) not in self.tags):
            raise Problem(412, "precondition_failed", "it was changed since it had the tag of If-Match: read it again")
