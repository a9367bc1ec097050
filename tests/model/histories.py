"""Histories that were once billed wrongly, or are minimal examples; each has a name, and must stay right."""

from collections.abc import Iterator

from tests.model.history import (
    AI,
    ANSWER,
    DAY,
    HOLD,
    HOUR,
    MINUTE,
    NOT,
    SEEK,
    SHARED,
    TYPO,
    WEBHOOK,
    Arrives,
    Away,
    Backfilled,
    Call,
    Counted,
    History,
    Learnt,
    Mapped,
    Polled,
    Pruned,
    Requeued,
    Restarted,
    Step,
    Subscribed,
    Terminated,
    Tick,
    Unmapped,
    WrittenOff,
    at,
    name_of,
)

_BEGINS = at("04-02 00:00:00")
_ANN = Mapped(_BEGINS, "ann", "org_a")
_A = Subscribed(_BEGINS, "org_a", AI)
_NOON = at("04-14 12:00:00")


def _then(*steps: Step) -> History:
    """Add further steps, after some time has passed."""
    last = steps[-1].at + 2 * HOUR
    return (*steps, Tick(last), Tick(last + HOUR))


def _call(moment: int, number: int = 0, cost: str | None = "0.01", kind: str = "end_user", ago: int = 0) -> Arrives:
    return Arrives(moment, Call(number, moment - ago, cost, kind))


def _back_and_forth(moment: int) -> Iterator[Step]:
    """Ann is mapped eight times within hours."""
    return (Mapped(moment + n * 10 * MINUTE, "ann", "org_b" if n % 2 == 0 else "org_a") for n in range(8))


KNOWN: dict[str, History] = {
    "a job is billed once, however often it is polled": _then(
        _ANN, _A, *(Polled(_NOON + n * HOUR, 0, cost) for n, cost in enumerate((None, "0.5", "0.5", "0.5")))
    ),
    "a copy with a cost follows one without": _then(_ANN, _A, _call(_NOON, cost=None), _call(_NOON), _call(_NOON)),
    "a backfilled row has the cost that was missing in the callback": _then(
        _ANN, _A, _call(_NOON, cost=None), Tick(_NOON + HOUR), Backfilled(_NOON + HOUR + MINUTE, Call(0, _NOON, "0.01"))
    ),
    "held usage that is released after the month is on the next invoice": _then(
        _call(_NOON), Subscribed(_NOON, "org_a", AI), Mapped(at("05-05 00:00:00"), "ann", "org_a")
    ),
    "an event that waited for Lago over the month's end is on the next invoice": _then(
        _ANN,
        _A,
        Away(at("04-30 23:00:00"), away=True),
        _call(at("04-30 23:00:00")),
        Tick(at("04-30 23:10:20")),
        Tick(at("05-01 00:10:20")),
        Away(at("05-01 00:10:30"), away=False),
    ),
    "a plan without a charge takes no usage": _then(
        _ANN, Subscribed(_BEGINS, "org_a", SEEK), Subscribed(_BEGINS + 9, "org_a", AI), _call(_NOON)
    ),
    "usage is held because the plan has no charge": _then(_ANN, Subscribed(_BEGINS, "org_a", SEEK), _call(_NOON)),
    "two subscriptions charge, and neither is the org's own": _then(
        _ANN, _A, Subscribed(_BEGINS, "org_a", AI, number=1), _call(_NOON)
    ),
    "two subscriptions charge, and one is the org's own": _then(
        _ANN, _A, Subscribed(_BEGINS, "org_a", AI, number=1, own=True), _call(_NOON)
    ),
    "held usage of two orgs is not merged": _then(
        _ANN,
        _call(_NOON, cost="1"),
        Mapped(_NOON + MINUTE, "ann", "org_b"),
        _call(_NOON + 3 * MINUTE, cost="0.07"),
        Tick(_NOON + 2 * HOUR),
        Tick(_NOON + 3 * HOUR),
        Subscribed(_NOON + 4 * HOUR, "org_a", AI),
        Subscribed(_NOON + 4 * HOUR, "org_b", AI),
    ),
    "a mapping for another kind of id is corrected": _then(
        Mapped(_BEGINS, "ann", "org_a", "user"), _A, _call(_NOON), Mapped(_NOON + MINUTE, "ann", "org_a")
    ),
    "a mapping to an org that does not exist is deleted": _then(
        Mapped(_BEGINS, "ann", TYPO),
        _A,
        _call(_NOON),
        Unmapped(_NOON + MINUTE, "ann", deleted=True),
        Mapped(_NOON + 2 * MINUTE, "ann", "org_a"),
    ),
    "a call in the same second as written-off usage": _then(
        _call(_NOON),
        Tick(_NOON + 2 * HOUR),
        Tick(_NOON + 3 * HOUR),
        _call(_NOON + 4 * HOUR, 3, ago=4 * HOUR),
        Tick(_NOON + 5 * HOUR),
        Tick(_NOON + 6 * HOUR),
        WrittenOff(_NOON + 7 * HOUR, "ann"),
        _call(_NOON + 8 * HOUR, 0, ago=8 * HOUR - 1),
        _call(_NOON + 8 * HOUR, 6, ago=8 * HOUR),
        Requeued(_NOON + 8 * HOUR),
    ),
    "the group's names change while a window is open": _then(
        _ANN, _A, _call(_NOON), Restarted(_NOON + 30, group_by=("team_id",)), _call(_NOON + 40, 3)
    ),
    "the window's length changes while one is open": _then(
        _ANN, _A, _call(_NOON), Restarted(_NOON + 30, window=HOUR), _call(_NOON + 40, 3), Tick(_NOON + 70)
    ),
    "late usage of an ended subscription goes to the next one": _then(
        _ANN,
        _A,
        _call(_NOON),
        Terminated(_NOON + 10, "org_a", AI),
        Subscribed(_NOON + 20, "org_a", AI, number=1),
        Tick(_NOON + 2 * MINUTE + 20),
    ),
    "a call of a time with two subscriptions arrives after one of them has ended": _then(
        _ANN,
        _A,
        Subscribed(_BEGINS, "org_a", AI, number=1),
        Terminated(_NOON, "org_a", AI),
        _call(_NOON, number=1),  # is held, so the worker has checked what it can release
        Tick(_NOON + 1),
        _call(_NOON + MINUTE, ago=2 * MINUTE),
    ),
    "the org that got the held usage of a deleted mapping keeps it when the customer moves on": _then(
        Mapped(_BEGINS, "ann", TYPO),
        _call(_NOON),
        Unmapped(_NOON + MINUTE, "ann", deleted=True),
        Mapped(_NOON + 2 * MINUTE, "ann", "org_a"),
        Mapped(_NOON + 3 * MINUTE, "ann", "org_b"),
        Subscribed(_NOON + 4 * MINUTE, "org_b", AI),
        Tick(_NOON + 2 * HOUR),
        Subscribed(_NOON + 3 * HOUR, "org_a", AI),
    ),
    "the org that is mapped again after the deletion keeps the held usage, too": _then(
        Mapped(_BEGINS, "ann", "org_a"),
        _call(_NOON),
        Unmapped(_NOON + MINUTE, "ann", deleted=True),
        Mapped(_NOON + 2 * MINUTE, "ann", "org_a"),
        Mapped(_NOON + 3 * MINUTE, "ann", "org_b"),
        Subscribed(_NOON + 4 * MINUTE, "org_b", AI),
    ),
    "held usage goes to the next org if the one before was deleted without a subscription": _then(
        Mapped(_BEGINS, "ann", TYPO),
        _call(_NOON),
        Unmapped(_NOON + MINUTE, "ann", deleted=True),
        Mapped(_NOON + 2 * MINUTE, "ann", "org_a"),
        Unmapped(_NOON + 3 * MINUTE, "ann", deleted=True),
        Mapped(_NOON + 4 * MINUTE, "ann", "org_b"),
        Subscribed(_NOON + 5 * MINUTE, "org_b", AI),
    ),
    "a version begins to apply, and no record changes at that time": _then(
        Mapped(_BEGINS, "ann", "org_a", "user"),
        _A,
        _call(_NOON),
        Mapped(_NOON + MINUTE, "ann", "org_a"),
        Tick(_NOON + MINUTE),
    ),
    "usage held for an org stays its own, also after many changes": _then(
        _ANN,
        Subscribed(_BEGINS, "org_b", AI),
        _call(_NOON, cost="9"),
        *_back_and_forth(_NOON + HOUR),
        Mapped(_NOON + 4 * DAY, "ann", "org_b"),
        Mapped(_NOON + 4 * DAY + HOUR, "ann", "org_a"),
        Tick(_NOON + 5 * DAY),
        Subscribed(_NOON + 6 * DAY, "org_a", AI),
    ),
    "a late call of the time before many changes": _then(
        _ANN,
        _A,
        Subscribed(_BEGINS, "org_b", AI),
        *_back_and_forth(_NOON + HOUR),
        Mapped(_NOON + 4 * DAY, "ann", "org_b"),
        Mapped(_NOON + 4 * DAY + HOUR, "ann", "org_a"),
        Arrives(_NOON + 4 * DAY + 2 * HOUR, Call(0, _NOON, "9")),
        Requeued(_NOON + 4 * DAY + 3 * HOUR),
    ),
    **{
        f"usage held by an inactive mapping while another is announced, and then {name}": _then(
            _ANN,
            _A,
            Subscribed(_BEGINS, "org_b", AI),
            Unmapped(_NOON, "ann"),
            _call(_NOON + HOUR, cost="9"),
            Tick(_NOON + 2 * HOUR),
            Mapped(_NOON + 3 * HOUR, "ann", "org_b", begins=_NOON + 10 * DAY),
            Tick(_NOON + 4 * HOUR),
            *then,
        )
        for name, then in {
            "nothing": (),
            "it is withdrawn": (Unmapped(_NOON + 5 * HOUR, "ann"),),
            "another begins before it": (Mapped(_NOON + 5 * HOUR, "ann", "org_a"),),
            "it begins": (Tick(_NOON + 11 * DAY),),
        }.items()
    },
    "usage posted after an end is billed again when the end is known and a subscription can bill it": _then(
        _ANN,
        _A,
        Terminated(_NOON, "org_a", AI, way=NOT),
        _call(_NOON + HOUR),
        Tick(_NOON + 2 * HOUR),
        Learnt(_NOON + 3 * HOUR, "org_a", ANSWER),
        Tick(_NOON + 3 * HOUR),
        Subscribed(_NOON + 4 * HOUR, "org_a", AI, number=1, way=NOT),
    ),
    "usage posted after an end waits for a person with OUT_OF_PERIOD_POLICY=hold": _then(
        _ANN,
        _A,
        Restarted(_BEGINS, late=HOLD),
        Terminated(_NOON, "org_a", AI, way=NOT),
        _call(_NOON + HOUR),
        Tick(_NOON + 2 * HOUR),
        Subscribed(_NOON + 4 * HOUR, "org_a", AI, number=1),
    ),
    "an event that Lago stored after it had counted the last invoice is billed again": _then(
        _ANN,
        _A,
        Terminated(_NOON, "org_a", AI, way=NOT),
        _call(_NOON + MINUTE, ago=2 * MINUTE),
        Tick(_NOON + HOUR),
        Subscribed(_NOON + 2 * HOUR, "org_a", AI, number=1),
    ),
    "an event that Lago stored before it counted the last invoice is on it": _then(
        _ANN,
        _A,
        Terminated(_NOON, "org_a", AI, way=NOT, slow=True),
        _call(_NOON + MINUTE, ago=2 * MINUTE),
        Tick(_NOON + 3 * MINUTE),
        Subscribed(_NOON + 4 * MINUTE, "org_a", AI, number=1),
        Tick(_NOON + 5 * MINUTE),
        Counted(_NOON + 6 * MINUTE, name_of("org_a", AI, 0)),
        Tick(_NOON + 7 * MINUTE),
    ),
    "it is unknown whether an event of the last invoice's second is on it": _then(
        _ANN,
        _A,
        Restarted(_BEGINS, window=0),
        Terminated(_NOON, "org_a", AI, way=NOT, slow=True),
        _call(_NOON + MINUTE, cost="1", ago=2 * MINUTE),
        Counted(_NOON + MINUTE, name_of("org_a", AI, 0)),
        _call(_NOON + MINUTE, cost="2", ago=HOUR),
        Subscribed(_NOON + 2 * HOUR, "org_a", AI, number=1),
    ),
    "a last invoice that is never made": _then(
        _ANN,
        _A,
        Terminated(_NOON, "org_a", AI, way=NOT, slow=True),
        _call(_NOON + MINUTE, ago=2 * MINUTE),
        Tick(_NOON + 3 * MINUTE),
        Subscribed(_NOON + 4 * MINUTE, "org_a", AI, number=1),
    ),
    "a named subscription that has ended pays for nothing, its successor by name does": _then(
        Mapped(_BEGINS, "ann", "org_a", named=name_of("org_a", AI, 0)),
        _A,
        Terminated(_NOON, "org_a", AI, way=NOT),
        _call(_NOON + HOUR),
        Tick(_NOON + 2 * HOUR),
        Subscribed(_NOON + 3 * HOUR, "org_a", AI, number=1),
        _call(_NOON + 4 * HOUR, 6),
        Tick(_NOON + 5 * HOUR),
        Mapped(_NOON + 6 * HOUR, "ann", "org_a", named=name_of("org_a", AI, 1)),
    ),
    "a named subscription that another org has": _then(
        Mapped(_BEGINS, "ann", "org_a", named=name_of("org_b", AI, 0)),
        Subscribed(_BEGINS, "org_b", AI),
        _A,
        _call(_NOON),
    ),
    **{
        f"an external id that the other org has now: {name}": _then(
            _ANN,
            Subscribed(_BEGINS, "org_a", AI, number=SHARED),
            Terminated(_NOON, "org_a", AI, SHARED, way=ended),
            Subscribed(_NOON + HOUR, "org_b", AI, number=SHARED, way=begun),
            _call(_NOON + 2 * HOUR),
            Tick(_NOON + 3 * HOUR),
            Subscribed(_NOON + 4 * HOUR, "org_a", AI, number=1),
        )
        for name, ended, begun in (
            ("the end is learnt", WEBHOOK, WEBHOOK),
            ("the new life is learnt", NOT, WEBHOOK),
            ("nothing is learnt, so it is on the other's invoice", NOT, NOT),
        )
    },
    **{
        f"a call of a time before all kept versions{name}": _then(
            _ANN,
            _A,
            *_back_and_forth(_NOON + HOUR),
            Mapped(_NOON + 32 * DAY, "ann", "org_b"),
            Mapped(_NOON + 32 * DAY + HOUR, "ann", "org_a"),
            Arrives(_NOON + 32 * DAY + 2 * HOUR, Call(0, _NOON, "9")),
            Requeued(_NOON + 32 * DAY + 3 * HOUR),
            *then,
        )
        for name, then in {
            "": (),
            ", and an operator sets the payer": (Mapped(_NOON + 33 * DAY, "ann", "org_a", begins=_NOON - DAY),),
        }.items()
    },
    "a mapping that begins in the past, and one that is not allowed to": _then(
        Mapped(_NOON, "ann", "org_a", begins=_BEGINS),
        _A,
        _call(_NOON),
        Mapped(_NOON + HOUR, "ann", "org_b", begins=_BEGINS),
    ),
    "it is unknown whether a call of a pruned month was billed": _then(
        _ANN, _A, Pruned(at("05-03 00:00:00")), Backfilled(at("05-03 00:00:00"), Call(0, _NOON, "1"))
    ),
    "a call that began when the pruned month ended": _then(
        _ANN, _A, Pruned(at("05-03 00:00:00")), Backfilled(at("05-03 00:00:00"), Call(0, at("05-01 00:00:01"), "1"))
    ),
    "an end in the second in which the invoices were read": _then(
        _ANN,
        _A,
        _call(_NOON),
        Tick(_NOON + HOUR),
        Terminated(_NOON + 2 * HOUR, "org_b", "ai"),
        Terminated(_NOON + 2 * HOUR, "org_a", "ai"),
        Tick(_NOON + 4 * HOUR),
    ),
    "the sink moves nothing with OUT_OF_PERIOD_POLICY=hold": _then(
        _ANN,
        _A,
        Restarted(_BEGINS, late=HOLD),
        Away(at("04-30 23:00:00"), away=True),
        _call(at("04-30 23:00:00")),
        Tick(at("04-30 23:10:20")),
        Away(at("05-01 00:10:30"), away=False),
    ),
}
