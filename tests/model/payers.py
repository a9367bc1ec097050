"""The payer by the mappings; docs/owed.md, 6 to 8."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.model import history as h

#: This number of versions of a mapping is kept, and also every version that decides about usage of this age.
KEPT, KEPT_FOR = 8, 31 * h.DAY
Change = h.Mapped | h.Unmapped
Version = tuple[int, Change]
Payer = tuple[str, str]


@dataclass
class Mapping:
    """The stored versions of one customer's mapping, `(since, which)`. Usage that ended before `known_from` was decided
    by versions that are not kept, and differently from the oldest kept one.
    """

    versions: list[Version] = field(default_factory=list)
    known_from: int = 0

    def maps(self, step: Change) -> bool:
        """From now plus the delay on, or from the time that it names. Only the first version may start in the past, and
        one before `known_from`. An announced version stays, unless the mapping is ended, which withdraws it. False:
        nothing is changed.
        """
        kept, earliest_effective = self.versions, step.at + h.LEAD
        begins = (isinstance(step, h.Mapped) and step.begins) or earliest_effective
        if not kept:
            self.versions = [(begins, step)] if isinstance(step, h.Mapped) else []
            return bool(self.versions)
        if begins < self.known_from:
            self.versions, self.known_from = [(begins, step), *kept], begins
            return True
        if begins < earliest_effective or self.says(step, begins):
            return False
        later = [] if isinstance(step, h.Unmapped) else [one for one in kept if one[0] > begins]
        before = [one for one in kept if one[0] < begins] or [(0, kept[0][1])]
        self.versions = [*before, (begins, step), *later]
        return True

    def says(self, step: Change, begins: int) -> bool:
        """Whether the mapping says so already."""
        there = self.versions[covering(self.versions, begins)]
        if isinstance(step, h.Mapped):
            return decides(there[1]) == decides(step)
        ended = there == self.versions[-1] and isinstance(there[1], h.Unmapped) and there[1].deleted >= step.deleted
        now = self.versions[covering(self.versions, step.at) :]
        return ended or all(isinstance(one, h.Unmapped) and one.deleted for _, one in now)

    def forgets(self, now: int) -> tuple[list[Version], int]:
        """Versions and `known_from` after the removal of those that decide nothing of `KEPT_FOR`: beyond `KEPT`; and
        all of them if no org was mapped since before that.
        """
        kept, known_from = self.versions, self.known_from
        while len(kept) > KEPT and kept[1][0] <= now - KEPT_FOR:
            known_from = kept[1][0] if decides(kept[0][1]) != decides(kept[1][1]) else known_from
            kept = kept[1:]
        return kept, known_from

    def is_forgotten(self, now: int) -> bool:
        """No org was mapped since before `KEPT_FOR`: no record is kept."""
        begun, last = self.versions[-1] if self.versions else (0, None)
        return isinstance(last, h.Unmapped) and last.deleted and begun < now - KEPT_FOR


def turns(versions: list[Version], first: int, kind: str, now: int, had_one: Callable[[str], bool]) -> Iterator[Payer]:
    """The possible orgs, each with the named subscription: first that of the first usable version (it has not ended,
    and is not for another kind of id). If it leads to no subscription, later versions of the same org; and of another
    org only if this version was deleted before its org had any subscription. Then that org holds the usage, and the
    same is asked of it. No version takes over before it has started.
    """
    holder = ""
    deleted = named = False
    for number, (begins, mapped) in enumerate(versions[first:]):
        if begins > now and number:
            return
        if isinstance(mapped, h.Unmapped):
            deleted |= mapped.deleted and holder != ""
        elif mapped.kind in ("", kind):
            if holder and mapped.org != holder:
                if not deleted or named or had_one(holder):
                    return
                named = False
            holder, deleted, named = mapped.org, False, named or bool(mapped.named)
            yield mapped.org, mapped.named


def covering(versions: list[Version], moment: int) -> int:
    """The number of the version that contains the time; the first also covers everything before it."""
    return max((number for number, (begins, _) in enumerate(versions) if begins <= moment), default=0)


def decides(change: Change) -> object:
    """The fields that decide about billing."""
    return (change.org, change.kind, change.named) if isinstance(change, h.Mapped) else change.deleted
