"""Who pays by the mappings; docs/owed.md, 6 to 8."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.model import history as h

#: So many versions of a mapping are kept, and all by which usage of so long ago is decided.
KEPT, KEPT_FOR = 8, 31 * h.DAY
Change = h.Mapped | h.Unmapped
Version = tuple[int, Change]
Payer = tuple[str, str]


@dataclass
class Mapping:
    """All versions of one customer's mapping, `(since, which)`; of the first `gone` of them no record is kept."""

    versions: list[Version] = field(default_factory=list)
    gone: int = 0

    @property
    def kept(self) -> list[Version]:
        """Those that are on record."""
        return self.versions[self.gone :]

    def maps(self, step: Change) -> bool:
        """From now and the lead on, or from the moment that it names; only the first one may begin in the past. What was
        announced for later stays, unless the mapping is ended: that takes it back. False: nothing is changed."""
        kept, soonest = self.kept, step.at + h.LEAD
        begins = (isinstance(step, h.Mapped) and step.begins) or soonest
        if not kept:
            if isinstance(step, h.Mapped):
                self.versions.append((begins, step))
            return isinstance(step, h.Mapped)
        if begins < soonest or self.says(step, begins):
            return False
        later = [] if isinstance(step, h.Unmapped) else [one for one in kept if one[0] > begins]
        before = [one for one in kept if one[0] < begins] or [(0, kept[0][1])]
        self.versions[self.gone :] = [*before, (begins, step), *later]
        return True

    def says(self, step: Change, begins: int) -> bool:
        """Whether it is so already."""
        there = self.kept[covering(self.kept, begins)]
        if isinstance(step, h.Mapped):
            known = there[1]
            return isinstance(known, h.Mapped) and terms(known) == terms(step)
        ended = there == self.kept[-1] and isinstance(there[1], h.Unmapped) and there[1].deleted >= step.deleted
        shown = [one for _, one in self.kept[covering(self.kept, step.at) :] if isinstance(one, h.Mapped) or not one.deleted]
        return ended or not shown

    def forgettable(self, now: int) -> int:
        """How many versions are not kept any longer: beyond `KEPT` those that decide nothing of `KEPT_FOR`."""
        number = self.gone
        while len(self.versions) - number > KEPT and self.versions[number + 1][0] <= now - KEPT_FOR:
            number += 1
        return number

    def all_forgettable(self, now: int) -> bool:
        """Nobody has been mapped since before `KEPT_FOR`."""
        begun, last = self.versions[-1] if self.kept else (0, None)
        return isinstance(last, h.Unmapped) and last.deleted and begun < now - KEPT_FOR


def turns(
    versions: list[Version], first: int, kind: str, now: int, had_one: Callable[[str], bool]
) -> Iterator[Payer]:
    """Orgs, with the subscription that is named: of the first of the versions on that is of any use to the call (it has
    not ended, nor is it for another kind of id). After it, should it lead to no subscription, later ones to the same
    org; and to another org only if it was deleted before its org had any subscription. Then that org is the one that
    holds it, and the same is asked of it. None takes over before it has begun."""
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
    """The number of the version that the moment lies in; the first covers everything before it."""
    return max((number for number, (begins, _) in enumerate(versions) if begins <= moment), default=0)


def terms(mapped: h.Mapped) -> tuple[str, str, str]:
    """What it says."""
    return mapped.org, mapped.kind, mapped.named
