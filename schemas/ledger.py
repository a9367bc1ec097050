"""The state of a ledger: its position, counters and open windows.

These are the values of `meter.changelog`, MessagePack; only the meter reads them. Costs are dollars.
"""

from decimal import Decimal
from typing import Annotated

import msgspec

from schemas.moments import MAX_US
from schemas.money import EXACT, ZERO, add
from schemas.wire import Metered

#: The version of the changelog. It is increased if an older release would misread or drop a part of the values.
LEDGER_VERSION = 5
#: The version of a changelog whose raw topic got more partitions. An earlier release would count calls of another
#: ledger.
GROWN_VERSION = 5
#: The version of a changelog with rated windows. An earlier release would bill them at their cost.
RATED_VERSION = 4
#: The version of a changelog with tags of identities, jobs, and windows that name their group.
TAGGED_VERSION = 3
#: The version of a changelog with metered windows. The first release would bill them as tokens.
METERED_VERSION = 2
#: The version of a changelog that the first release can read.
PLAIN_VERSION = 1
#: Length of a held window until it is merged; mapping versions begin on whole seconds.
HELD_LENGTH_US = 1_000_000
#: Keys of the changelog: one position; a window by its first offset; a chunk of identities by hour and offset; a job by
#: its identity. Identities are stored with their tags (streams/core/metering/known_identities.py): new identities, and
#: identities that a copy has settled later. Releases before version 3 wrote identities without tags.
POSITION_KEY = b"position"
WINDOW_PREFIX = b"w"
UNTOLD_PREFIX = b"s"
SEEN_PREFIX = b"i"
SETTLED_PREFIX = b"u"
JOB_PREFIX = b"j"

#: Bounds of a window's numbers, which its decoder checks: an integer of Postgres, and microseconds since 1970 UTC.
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Moment = Annotated[int, msgspec.Meta(ge=0, lt=MAX_US)]


class Sum(msgspec.Struct, array_like=True, gc=False):
    """A number of calls and their total cost."""

    calls: int = 0
    cost: Decimal = ZERO

    def __add__(self, other: "Sum") -> "Sum":
        """Exact; see `schemas.money.add`."""
        return Sum(self.calls + other.calls, add(self.cost, other.cost))

    def __sub__(self, other: "Sum") -> "Sum":
        """Exact; see `schemas.money.add`."""
        return Sum(self.calls - other.calls, add(self.cost, -other.cost))


class Counters(msgspec.Struct, array_like=True, gc=False):
    """The counters of conservation, in calls and in dollars.

    `received = folded + duplicate + rejected + unbilled` and `folded = open + held + sealed + written_off`.
    """

    received: Sum = msgspec.field(default_factory=Sum)
    folded: Sum = msgspec.field(default_factory=Sum)
    duplicate: Sum = msgspec.field(default_factory=Sum)
    rejected: Sum = msgspec.field(default_factory=Sum)
    unbilled: Sum = msgspec.field(default_factory=Sum)
    sealed: Sum = msgspec.field(default_factory=Sum)
    written_off: Sum = msgspec.field(default_factory=Sum)


class Position(msgspec.Struct, array_like=True, gc=False):
    """The position and the totals of a ledger.

    Fields:
        next: offset of the next raw record to fold.
        clock_ms: the partition clock: the highest record time seen, milliseconds since 1970 UTC.
        topic_id, partitions: the raw topic from which the ledger was built.
        deployment: the ledger's owner.
        seal_seq: number of the last sealed part; contiguous in `billing.lago.events`.
        dropped_hour: identities that were counted in earlier hours are forgotten.
        v: version of the changelog, the lowest that can represent all its values.
        forgot_us: a lost ledger may have counted calls that ended before this moment, microseconds since 1970 UTC; 0 =
            no ledger was lost. None of these calls is folded directly.
        skipped: number of raw offsets that `meterbridge ledger init` skipped.
        decisions: calls and dollars by the meter's decision, without duplicates and rejected calls; since version 3.
        held: number of windows that wait for a mapping or a subscription; 0 if a release wrote it that did not count
            them.
        margin: billed dollars of the sealed parts minus their cost. Since version 4.
        grown_from: number of partitions when the ledger was begun, if partitions were added since; 0 = none were added.
            Records whose key belongs to a newer partition are forwarded to it. Since version 5.
        forwarded: number of records that were forwarded.
        summed_from: number of the first part in the sums of the counters and in `margin`. A lost ledger is begun again
            with the parts that are still in `billing.lago.events`.
        recounted_to: of a rebuilt ledger, the offset up to which the lost one had counted. Calls below it may be counted
            again.
    """

    next: int = 0
    clock_ms: int = 0
    topic_id: str = ""
    partitions: int = 0
    deployment: str = ""
    seal_seq: int = 0
    dropped_hour: int = 0
    counters: Counters = msgspec.field(default_factory=Counters)
    v: int = PLAIN_VERSION
    forgot_us: int = 0
    skipped: int = 0
    decisions: dict[str, Sum] = msgspec.field(default_factory=dict)
    held: int = 0
    margin: Decimal = ZERO
    grown_from: int = 0
    forwarded: int = 0
    summed_from: int = 1
    recounted_to: int = 0


class FailedAttempt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A failed attempt of a call that was billed: its end, microseconds since 1970 UTC, and what it reported."""

    end_us: int
    cost: Decimal
    tokens_input: int = 0
    tokens_output: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Attempts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The failed attempts of one call (streams/core/metering/failed_attempts.py).

    Fields:
        billed: those that no success has carried yet, the latest end first.
        carried: what the last success has carried of attempts that were not reported before it, dollars.
        until_us: its end. An attempt that ended up to then is billed with it. Microseconds since 1970 UTC.
    """

    billed: tuple[FailedAttempt, ...] = ()
    carried: Decimal = ZERO
    until_us: int = 0


class Job(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The remembered facts about a job, or about the failed attempts of a call.

    Fields:
        hour: hour of the partition clock at its last report, hours since 1970 UTC; up to a day late.
        tag: the tag of its identity (streams/core/metering/known_identities.py).
        attempts: None = it is a job. Releases before this field ignore it.
    """

    hour: int
    tag: int
    attempts: Attempts | None = None


class Rated(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The price of a window's calls: all by one version of the rate card, and with one payer's factor.

    Fields:
        rate: id of the version.
        factor: factor of the payer's org or plan; 1 while the window is held, because the payer is unknown.
        usd: the sum of the calls' prices, dollars, before the factor.
    """

    rate: str
    factor: Decimal = Decimal(1)
    usd: Decimal = ZERO

    @property
    def billed(self) -> Decimal:
        """The billed amount, dollars; exact."""
        return EXACT.multiply(self.usd, self.factor)


class Window(msgspec.Struct, array_like=True, gc=False):
    """Calls that are folded together: one customer, target, model, provider, group and time span.

    Fields:
        first, last: raw offsets of the first and last call; `first` names the part.
        start_us: `[start, start + length)`, UTC-aligned; `length_us` 0 = a single call. Of merged held windows the
            stretch in which all were resolved alike (streams/core/mapping/time_spans.py).
        subscription, org_id: resolved at the fold and then fixed. A held window has no subscription; its `org_id` is
            the org that would have paid at the last look.
        held: why it has no subscription; `""` = it has one.
        group: values of the extra group fields, in the order of `group_names`.
        min_end_us, max_end_us: end times of its first and last call by time.
        merged: first offsets of held windows released into this one.
        identity: identity of the call; only in per-call mode and for other metered events.
        metered: the other metered event that the window holds, of the org in `customer_id`; None for calls.
        group_names: the policy's `group_by` when the window was begun. Older releases wrote none.
        rated: None = no rate card applies, and `cost` is billed.
    """

    first: Count
    last: Count
    customer_id: str
    id_kind: str
    org_id: str
    subscription: str
    held: str
    model: str
    provider: str
    group: tuple[str, ...]
    start_us: Moment
    length_us: Count
    min_end_us: Moment
    max_end_us: Moment
    count: Count = 0
    tokens_input: Count = 0
    tokens_output: Count = 0
    total_tokens: Count = 0
    cached_tokens: Count = 0
    reasoning_tokens: Count = 0
    cost: Decimal = ZERO
    merged: tuple[Count, ...] = ()
    identity: bytes = b""
    metered: Metered | None = None
    group_names: tuple[str, ...] = ()
    rated: Rated | None = None

    @property
    def billed(self) -> Decimal:
        """The amount of its event, dollars."""
        return self.cost if self.rated is None else self.rated.billed


#: How a call is rated: the version of the card and the payer's factor; None = by no card.
RateKey = tuple[str, Decimal] | None
WindowKey = tuple[str, str, str, str, str, str, tuple[str, ...], tuple[str, ...], int, int, bytes, RateKey]


def window_key(window: Window) -> WindowKey:
    """Return the key of the window that two calls share; the key of a held window also contains the id's kind.

    It contains the length and the names of the group, so that changed settings begin new windows.
    """
    kind = window.id_kind if window.held else ""
    return (
        window.customer_id,
        window.org_id,
        window.subscription,
        kind,
        window.model,
        window.provider,
        window.group_names,
        window.group,
        window.start_us,
        window.length_us,
        window.identity,
        None if window.rated is None else (window.rated.rate, window.rated.factor),
    )


def version_of(window: Window) -> int:
    """Return the lowest version that can represent the window.

    Releases before version 3 name the group by their own setting, and merge held windows across borders.
    """
    if window.rated is not None:
        return RATED_VERSION
    if window.group_names or (window.held and window.length_us > HELD_LENGTH_US):
        return TAGGED_VERSION
    return PLAIN_VERSION if window.metered is None else METERED_VERSION
