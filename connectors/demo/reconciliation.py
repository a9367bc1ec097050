"""Compares the sent calls and amounts with the billed ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from connectors.demo.lago import BilledTotal
from connectors.demo.sample_orgs import Org
from connectors.demo.scraper import MetricsReading
from connectors.demo.traffic import ExpectedBill
from schemas.ledger import Sum
from schemas.money import plain
from schemas.money import total as exact_total
from schemas.plurals import numbered
from streams.core.metering.decisions import BILLED, DUPLICATE

_NOT_UNBILLED: Final = {*BILLED, DUPLICATE}


class OrgLine(NamedTuple):
    """The amounts that were sent and billed for one org."""

    name: str
    sent: Sum
    billed: Sum


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The result of a demo.

    Fields:
        wrong: a sentence for each difference; empty = the run is exact.
        posts: number of requests with events to Lago.
    """

    orgs: tuple[OrgLine, ...]
    book: ExpectedBill
    reading: MetricsReading
    wrong: tuple[str, ...]
    posts: int

    @property
    def exact(self) -> bool:
        """Whether every call and every digit agrees."""
        return not self.wrong

    @property
    def sent(self) -> Sum:
        """Of all orgs."""
        return total(line.sent for line in self.orgs)

    @property
    def billed(self) -> Sum:
        """Of all orgs."""
        return total(line.billed for line in self.orgs)

    def verdict(self) -> str:
        """Return a line that says whether every call was billed once."""
        sent, billed = self.sent, self.billed
        if self.exact:
            return (
                f"GREEN  {numbered(sent.calls, 'call')} in = {numbered(billed.calls, 'call')} billed, {plain(sent.cost)} USD in = "
                f"{plain(billed.cost)} USD billed ({numbered(self.posts, 'Lago post')} instead of {sent.calls})"
            )
        return (
            f"RED  {numbered(sent.calls, 'call')} in, {numbered(billed.calls, 'call')} billed; {plain(sent.cost)} USD in, "
            f"{plain(billed.cost)} USD billed; {numbered(len(self.wrong), 'difference')}"
        )


def reconcile(orgs: Sequence[Org], book: ExpectedBill, bill: BilledTotal, reading: MetricsReading) -> Reconciliation:
    """Compare what was sent with what Lago and the meter report."""
    lines = tuple(
        OrgLine(
            org.name,
            total(book.billable[customer] for customer in org.customers),
            bill.subscriptions.get(org.subscription, Sum()),
        )
        for org in orgs
    )
    wrong = [
        f"{line.name}: {numbered(line.sent.calls, 'call')} and {plain(line.sent.cost)} USD in, "
        f"{numbered(line.billed.calls, 'call')} and {plain(line.billed.cost)} USD billed"
        for line in lines
        if line.sent != line.billed
    ]
    unauthenticated = bill.subscriptions.keys() - {org.subscription for org in orgs}
    wrong += [f"{name} was billed and belongs to no org" for name in sorted(unauthenticated)]
    seen = reading.decisions.get(DUPLICATE, 0)
    if not book.repeats <= seen <= book.repeats + book.unsure:
        wrong.append(f"{numbered(book.repeats, 'call was', 'calls were')} delivered again; recognised: {seen}")
    unbilled = {name: calls for name, calls in reading.decisions.items() if calls and name not in _NOT_UNBILLED}
    if unbilled != book.unbilled:
        wrong.append(f"not to be billed were {counts_text(book.unbilled)}; not billed were {counts_text(unbilled)}")
    if reading.halted:
        wrong.append(f"{numbered(reading.halted, 'partition stands', 'partitions stand')} still: worker.log says why")
    if reading.off_by:
        wrong.append(f"the meter's books are off by {reading.off_by}")
    return Reconciliation(lines, book, reading, tuple(wrong), reading.posts if bill.posts is None else bill.posts)


def total(sums: Iterable[Sum]) -> Sum:
    """Return the exact sum."""
    listed = list(sums)
    return Sum(sum(one.calls for one in listed), exact_total(one.cost for one in listed))


def counts_text(counts: Mapping[str, int]) -> str:
    """Return the counts as text: `12 cache_hit, 3 failed_call`, or `none`."""
    return ", ".join(f"{calls} {name}" for name, calls in sorted(counts.items())) or "none"
