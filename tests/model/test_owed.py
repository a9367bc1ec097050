"""The product bills what the model says is owed, for any history."""

import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.model.features import FEATURES
from tests.model.history import History
from tests.model.owed import Model, owed
from tests.model.priced import priced
from tests.model.product import live
from tests.model.strategies import aged, ended, histories, overtaken, waiting

#: The number of histories of each kind in every run.
SHARES: dict[Callable[[], st.SearchStrategy[History]], int] = {
    histories: 62,
    waiting: 45,
    ended: 62,
    aged: 31,
    overtaken: 50,
    priced: 200,
}
ALWAYS = sum(SHARES.values())
EXAMPLES = int(os.environ.get("OWED_EXAMPLES", ALWAYS))
#: A fixed one for those of every run: with it they are about all of `FEATURES`.
SEED = 2


def printed_history(history: History) -> str:
    """A history in readable form."""
    return "\n".join(f"{datetime.fromtimestamp(step.at, UTC):%m-%d %H:%M:%S}  {step}" for step in history)


def compare(history: History) -> None:
    """Raises AssertionError if model and product differ."""
    assert vars(live(history)) == vars(owed(history)), printed_history(history)


def about(history: History) -> list[str]:
    """The `FEATURES` that the history has."""
    model = Model()
    for step in history:
        model.takes(step)
    return [name for name, (_, tells) in FEATURES.items() if tells(history, model)]


def test_the_billed_amounts_equal_the_models() -> None:
    seen = Counter[str]()

    def tried(history: History) -> None:
        compare(history)
        seen.update(about(history) if EXAMPLES == ALWAYS else ())

    for draws, share in SHARES.items():
        try_ = given(draws())(tried)
        always = settings(
            max_examples=EXAMPLES * share // ALWAYS,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        always(seed(SEED)(try_) if EXAMPLES == ALWAYS else try_)()
    if EXAMPLES == ALWAYS:
        assert not {name: seen[name] for name, (least, _) in FEATURES.items() if seen[name] < least}
