"""Finds the first line of the audit log that was changed, removed, inserted, moved or forged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from connectors.access.audit_chain import AuditLine, ChainHead, after
from schemas.plurals import numbered
from schemas.records import AuditRecord

CHANGED, MISSING, INSERTED, REORDERED, FORGED = "changed", "missing", "inserted", "reordered", "forged"
#: A line refers to what its writer had just read. A line that leaves out lines older than this was not written by us.
STALE_US: Final = 3600 * 1_000_000
#: How many lines are tried as the wrong line; only a few lines are written at the same time.
_LOOKED_AT: Final = 200


@dataclass(frozen=True, slots=True)
class Broken:
    """The first place where the log differs from the written lines.

    Fields:
        kind: one of the five words above.
        offset: of the line, or of the line that refers to it; -1 = unknown.
        audit_id: `""` = unknown.
        detail: a sentence.
    """

    kind: str
    offset: int
    audit_id: str
    detail: str


@dataclass(slots=True)
class AuditVerdict:
    """The result of a check.

    Fields:
        lines: in the topic.
        old: lines before the first chained one.
        unchecked: chained lines at the beginning of the topic whose predecessors have expired.
        head: the position behind the last correct line.
        broken: None = nothing is wrong.
    """

    lines: int = 0
    old: int = 0
    unchecked: int = 0
    head: ChainHead = field(default_factory=ChainHead)
    broken: Broken | None = None


def verified(lines: Sequence[AuditLine], noted: ChainHead | None = None, *, from_the_beginning: bool) -> AuditVerdict:
    """Check every line.

    Args:
        lines: all lines of the topic, in order.
        noted: a head that was read earlier and kept elsewhere. A chain alone does not show that its last lines are missing.
        from_the_beginning: nothing has expired from the topic.
    """
    verdict = AuditVerdict(lines=len(lines))
    first = next((number for number, line in enumerate(lines) if line.is_chained), len(lines))
    verdict.old = first
    walk = _Walk(lines, first, verdict)
    if first < len(lines):
        verdict.broken = walk.done(from_the_beginning=from_the_beginning)
    if verdict.broken is None and noted is not None:
        verdict.broken = walk.held_against(noted)
    return verdict


class _Walk:
    """One pass through the lines, beginning with the first chained line."""

    def __init__(self, lines: Sequence[AuditLine], first: int, verdict: AuditVerdict) -> None:
        self._lines = lines
        self._first = first
        self._verdict = verdict
        self._places = {line.name: number for number, line in enumerate(lines)}
        self._by_id = {line.record.audit_id: number for number, line in enumerate(lines) if line.record is not None}
        #: The position behind each line by its index, from the first checked line on.
        self._chain_heads: dict[int, ChainHead] = {}
        self._verified = first - 1
        #: The topic has the first chained line, so a missing line has not expired.
        self._is_whole = False

    def done(self, *, from_the_beginning: bool) -> Broken | None:
        lines, first = self._lines, self._first
        opening = _record(lines[first])
        self._is_whole = from_the_beginning or first > 0
        if self._is_whole and not opening.covered:
            self._chain_heads[first - 1] = ChainHead()
        elif self._is_whole:
            return Broken(MISSING, lines[first].offset, *_before(opening))
        for number in range(first, len(lines)):
            if (broken := self._wrong_alone(lines[number]) or self._wrong_place(number)) is not None:
                return broken
            if (before := self._chain_heads.get(number - 1)) is not None:
                self._chain_heads[number] = self._verdict.head = after(before, lines[number])
            else:
                self._verdict.unchecked += 1
        return None

    def held_against(self, noted: ChainHead) -> Broken | None:
        """Check that a noted head is the head, or was passed on the way to it."""
        if (missing := noted.covered - self._verdict.head.covered) > 0:
            return Broken(MISSING, -1, "", f"{numbered(missing, 'line is', 'lines are')} missing at the end")
        passed = next(
            (chain_head for chain_head in self._chain_heads.values() if chain_head.covered == noted.covered), None
        )
        if passed is not None and passed.chain != noted.chain:
            return Broken(FORGED, -1, "", "the noted head does not belong to this log: the log was written again")
        return None

    def _wrong_alone(self, line: AuditLine) -> Broken | None:
        if line.record is None:
            return Broken(FORGED, line.offset, "", "the record is not a line of the audit log")
        if not line.is_chained:
            sentence = "the line has no hash, but lines before it have one"
            return Broken(FORGED, line.offset, line.record.audit_id, sentence)
        if not line.is_whole:
            return Broken(CHANGED, line.offset, line.record.audit_id, "the line does not match its own hash")
        return None

    def _wrong_place(self, number: int) -> Broken | None:
        """Compare what the line refers to with the lines that exist."""
        line, record = self._lines[number], _record(self._lines[number])
        place = self._first - 1 if not record.covered else self._places.get(record.prev)
        if not record.covered and place not in self._chain_heads:
            return None  # lines written at the same time as the first one, and the beginning, have expired
        if place is None:
            return self._not_there(number, record)
        if place >= number:
            other = self._lines[place]
            sentence = f"it is behind the line at offset {line.offset}, which was written after it"
            return Broken(REORDERED, other.offset, _record(other).audit_id, sentence)
        if not self._chain_heads:
            self._anchor(place, number, ChainHead(record.prev, record.covered, record.chain))
        if (there := self._chain_heads.get(place)) is None:
            return None
        if (record.covered, record.chain) != (there.covered, there.chain):
            return self._between(place, record, there)
        self._verified = max(self._verified, place)
        if record.at - _record(self._lines[place + 1]).at > STALE_US:
            sentence = "its writer left out lines that were more than an hour old"
            return Broken(FORGED, line.offset, record.audit_id, sentence)
        return None

    def _not_there(self, number: int, record: AuditRecord) -> Broken | None:
        if not self._is_whole and (
            not self._chain_heads or record.covered < next(iter(self._chain_heads.values())).covered
        ):
            return None  # the line that it refers to has expired
        named = record.prev.partition(":")[0]
        known = self._by_id.get(named)
        if known is None:
            return Broken(MISSING, self._lines[number].offset, *_before(record))
        sentence = f"the line at offset {self._lines[number].offset} was written after another one of this id"
        return Broken(CHANGED, self._lines[known].offset, named, sentence)

    def _anchor(self, place: int, number: int, chain_head: ChainHead) -> None:
        """Begin the check at the oldest line that another line refers to."""
        self._chain_heads[place] = chain_head
        self._verified = place
        for between in range(place + 1, number):
            self._chain_heads[between] = after(self._chain_heads[between - 1], self._lines[between])

    def _between(self, place: int, record: AuditRecord, there: ChainHead) -> Broken:
        """Find the fault between the last correct line and this one."""
        start, span = self._chain_heads[self._verified], self._lines[self._verified + 1 : place + 1]
        suspect = span[0] if span else self._lines[place]
        as_told = self._lines[self._verified + 1 : self._verified + 1 + record.covered - start.covered]
        for number in range(min(len(as_told), _LOOKED_AT) - 1):
            swapped = [*as_told[:number], as_told[number + 1], as_told[number], *as_told[number + 2 :]]
            if _chain(start, swapped) == record.chain:
                return _named(REORDERED, as_told[number], "it is before a line that was written earlier")
        if record.covered < there.covered:
            for number, line in enumerate(span[:_LOOKED_AT]):
                if _chain(start, [*span[:number], *span[number + 1 :]]) == record.chain:
                    suspect = line
            return _named(INSERTED, suspect, "later lines were written without it")
        if record.covered > there.covered:
            sentence = f"{numbered(record.covered - there.covered, 'line')} before this one"
            return _named(MISSING, suspect, f"{sentence} are missing")
        return _named(CHANGED, suspect, "later lines were written after another line in its place, or near it")


def _chain(start: ChainHead, lines: Sequence[AuditLine]) -> str:
    for line in lines:
        start = after(start, line)
    return start.chain


def _record(line: AuditLine) -> AuditRecord:
    assert line.record is not None  # noqa: S101  # checked before
    return line.record


def _before(record: AuditRecord) -> tuple[str, str]:
    named = record.prev.partition(":")[0]
    return named, f"the line {named} is missing, although line {record.audit_id} was written after it"


def _named(kind: str, line: AuditLine, detail: str) -> Broken:
    return Broken(kind, line.offset, _record(line).audit_id, detail)
