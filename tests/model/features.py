"""The features of a history, to draw the important ones often enough and to notice if that stops."""

from collections.abc import Callable
from decimal import Decimal

from tests.model import history as h
from tests.model import prices
from tests.model.lives import Life
from tests.model.owed import Model
from tests.model.uses import Use

Tell = Callable[[h.History, Model], bool]


def _mapped(history: h.History) -> list[h.Mapped]:
    return [step for step in history if isinstance(step, h.Mapped)]


def _ended(history: h.History) -> list[h.Terminated]:
    return [step for step in history if isinstance(step, h.Terminated)]


def _shared(history: h.History) -> list[str]:
    return [step.org for step in history if isinstance(step, h.Subscribed) and step.number == h.SHARED]


def _uses(model: Model, tell: Callable[[Use], object]) -> bool:
    return any(tell(use) for use in model.counted.values())


def _named(history: h.History) -> set[str]:
    return {step.named for step in _mapped(history)}


def _learnt_by_an_answer(history: h.History) -> bool:
    late = {step.org for step in _ended(history) if step.way == h.NOT}
    asked = {step.org for step in history if isinstance(step, h.Learnt) and step.way == h.ANSWER}
    return bool(late & asked) or any(step.way == h.ANSWER for step in _ended(history))


def _late_invoices(model: Model) -> list[Life]:
    return [one for one in model.lives.true if one.end is not None and one.counted != one.end]


def _in_between(_: h.History, model: Model) -> bool:
    for one in model.lives.stored:
        for life in _late_invoices(model):
            if life.name == one.name and life.at(one.moment) and one.bill and one.at > (life.end or one.at):
                return True
    return False


def _priced_late(model: Model) -> bool:
    return _uses(model, lambda use: use.card and prices.in_force(model.cards, use.came) is not use.card)


#: Each with how many of 250 histories are about it at least.
FEATURES: dict[str, tuple[int, Tell]] = {
    "a mapping names a subscription": (20, lambda history, _: any(_named(history))),
    "a mapping names a subscription that ends": (
        8,
        lambda history, _: any(step.subscription in _named(history) for step in _ended(history)),
    ),
    "a mapping names a subscription whose end is noticed late": (
        4,
        lambda history, _: any(one.subscription in _named(history) for one in _ended(history) if one.way == h.NOT),
    ),
    "a mapping begins in the past": (10, lambda history, _: any(0 < one.begins < one.at for one in _mapped(history))),
    "a mapping is announced": (8, lambda history, _: any(one.begins > one.at + h.LEAD for one in _mapped(history))),
    "more than eight versions": (8, lambda _, model: any(len(one.versions) > 8 for one in model.mappings.values())),
    "old versions are removed": (5, lambda _, model: any(one.known_from for one in model.mappings.values())),
    "held usage stays with the org of a removed version": (
        2,
        lambda _, model: _uses(model, lambda use: use.holder),
    ),
    "the log has pruned a call": (3, lambda history, model: any(one.ended <= model.pruned for one in model.late)),
    "an end is noticed late": (30, lambda history, _: any(step.way == h.NOT for step in _ended(history))),
    "an end is noticed in an answer of Lago": (15, lambda history, _: _learnt_by_an_answer(history)),
    "usage posted after an end is billed again": (5, lambda _, model: _uses(model, lambda use: use.again)),
    "usage posted after an end is billed nowhere": (
        6,
        lambda _, model: _uses(model, lambda use: use.posted and not use.bill),
    ),
    "the last invoice is counted later than the end": (10, lambda _, model: bool(_late_invoices(model))),
    "an event stored between an end and the last invoice is on it": (8, _in_between),
    "an event stored after the last invoice is billed again": (
        8,
        lambda _, model: _uses(model, lambda use: use.missed),
    ),
    "it is unknown whether an event is on the last invoice": (3, lambda _, model: _uses(model, model.is_unclear)),
    "usage is held or given up with OUT_OF_PERIOD_POLICY=hold": (
        4,
        lambda _, model: model.settings.late == h.HOLD and _uses(model, lambda use: use.dead or use.life is None),
    ),
    "one external id, two orgs": (4, lambda history, _: len({*_shared(history)}) > 1),
    "one external id, used twice by one org": (1, lambda history, _: len({*_shared(history)}) < len(_shared(history))),
    "calls are priced by two cards": (
        40,
        lambda _, model: len({use.card for use in model.counted.values() if use.card}) > 1,
    ),
    "a card bills calls without a cost": (
        30,
        lambda _, model: _uses(model, lambda use: use.sealed and not use.cost and use.price),
    ),
    "held usage is priced": (40, lambda _, model: _uses(model, lambda use: use.card and use.waited and use.sealed)),
    "priced usage is held for long and merged": (
        10,
        lambda _, model: _uses(model, lambda use: use.card and use.merged),
    ),
    "a minimum is billed": (
        15,
        lambda _, model: _uses(model, lambda use: use.card and use.price == Decimal(use.card.minimum) > 0),
    ),
    "the payer's factor applies": (
        40,
        lambda _, model: _uses(model, lambda use: use.sealed and use.billed != use.price),
    ),
    "a call is priced by another card than the one in force when it arrives": (
        40,
        lambda _, model: _priced_late(model),
    ),
    "held usage is merged": (10, lambda _, model: _uses(model, lambda use: use.merged)),
}
