"""`ETag`, `If-Match` and `If-None-Match` (RFC 9110, 8.8.3 and 13.1): change only what has not been changed meanwhile."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from connectors.http.problem import Problem

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
_ANY = "*"


def tag_of(record: msgspec.Struct) -> str:
    """The record's strong entity tag: the same content has the same tag in every process."""
    return f'"{sha256(msgspec.json.encode(record)).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must be so before a change.

    Fields:
        tags: one of these is the record's; `*` = there is one; None = not asked.
        absent: there is none yet.
    """

    tags: frozenset[str] | None = None
    absent: bool = False

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Precondition":
        """Raises: Problem 400 `bad_precondition`, for If-None-Match also where it is not `*`: it guards creation alone."""
        matching, creating = headers.get("If-Match"), headers.get("If-None-Match")
        if creating is not None and creating.strip() != _ANY:
            raise Problem(400, "bad_precondition", "If-None-Match takes * here")
        if matching is None:
            return cls(None, creating is not None)
        if matching.strip() == _ANY:
            return cls(frozenset({_ANY}), creating is not None)
        tags = [tag.strip() for tag in matching.split(",")]
        if not all(_TAG.fullmatch(tag) for tag in tags):
            raise Problem(400, "bad_precondition", "If-Match takes * or entity tags in double quotes")
        return cls(frozenset(tags), creating is not None)

    def check(self, record: msgspec.Struct | None, *, done: bool) -> None:
        """Whether `record`, None = there is none, may be changed; `done`: it is already what it is to be, which
        satisfies If-Match: whoever repeats a change is told that it is made (RFC 9110, 13.1.1).

        Raises:
            Problem: 412 `exists_already`, `precondition_failed`.
        """
        if self.absent and record is not None:
            raise Problem(412, "exists_already", "there is one already; without If-None-Match it would be changed")
        if self.tags is None or done:
            return
        if record is None or (_ANY not in self.tags and tag_of(record) not in self.tags):
            raise Problem(412, "precondition_failed", "it is not as If-Match says: read it again")
