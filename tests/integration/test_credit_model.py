"""Credit accounts in real Postgres equal the model in tests/model/credits.py, after any history."""

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator

import asyncpg
import pytest
from structlog.testing import capture_logs

from connectors.postgres.migrate import migrate
from tests.model.credit_faults import FAULTS
from tests.model.credit_history import History, Step, history_of
from tests.model.credit_product import Product, changed, use_history_time
from tests.model.credits import SEEN, Book
from tests.support.database import fresh_database

#: Histories of every run, always the same ones; `CREDIT_EXAMPLES=5000` for that many others.
ALWAYS = 110
EXAMPLES = int(os.environ.get("CREDIT_EXAMPLES", ALWAYS))
#: Number of histories among which a planted fault must be found.
LIMIT = 1000
#: The first history that shows a fault: what comes before it tells nothing of the fault, and is compared without one above.
FIRST = {
    "calls_use_the_oldest_grant_first": 29,
    "the_overdraft_has_no_bound": 21,
    "what_is_owed_is_always_repaid": 6,
    "old_calls_are_debited": 8,
    "a_call_without_cost_keeps_its_reservation": 50,
}
#: The histories of every run must contain each thing that the book counts at least this number of times.
LEAST = 3


class ModelDatabase:
    """A database whose functions use the time of a history."""

    def __init__(self, postgres_url: str) -> None:
        self.runner = asyncio.Runner()
        self._scope = fresh_database(postgres_url)
        url = self.runner.run(self._scope.__aenter__())
        self.runner.run(migrate(url))
        self.connection = self.runner.run(asyncpg.connect(url, server_settings={"timezone": "UTC"}))
        self.runner.run(use_history_time(self.connection))

    def close(self) -> None:
        self.runner.run(self.connection.close())
        self.runner.run(self._scope.__aexit__(None, None, None))
        self.runner.close()

    def compare(self, history: History) -> Counter[str]:
        """What the history contained. Raises AssertionError or PostgresError if model and product differ."""
        with capture_logs():  # the upkeep's log lines about thousands of histories
            return self.runner.run(self._compare(history))

    async def _compare(self, history: History) -> Counter[str]:
        book = Book()
        whole = self.connection.transaction()
        await whole.start()
        try:
            await self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            product = Product(self.connection)
            for step in history:
                assert (step, await product.takes(step)) == (step, book.takes(step))
                assert (step, await product.state()) == (step, book.state())
                if getattr(step, "account", "") in book.accounts:
                    assert await product.shown(step.account) == book.state()[step.account][:3]
            assert await product.sums() == book.sums()
        finally:
            await whole.rollback()
        return book.seen

    def differs(self, history: History) -> bool:
        try:
            self.compare(history)
        except (AssertionError, asyncpg.PostgresError):
            return True
        return False

    def first_that_differs(self, numbers: Iterable[int]) -> History | None:
        return next((history for history in map(history_of, numbers) if self.differs(history)), None)


@pytest.fixture(scope="module")
def bench(postgres_url: str) -> Iterator[ModelDatabase]:
    created = ModelDatabase(postgres_url)
    yield created
    created.close()


def shortened(bench: ModelDatabase, history: History) -> list[Step]:
    """The history without the steps that a difference does not need."""
    for step in list(history):
        without = [one for one in history if one is not step]
        if bench.differs(without):
            history = without
    return history


def test_random_movements_give_the_models_accounts(bench: ModelDatabase) -> None:
    begins = 0 if EXAMPLES == ALWAYS else secrets.randbits(32)
    seen: Counter[str] = Counter()
    for number in range(begins, begins + EXAMPLES):
        history = history_of(number)
        try:
            seen.update(bench.compare(history))
        except (AssertionError, asyncpg.PostgresError):
            short = shortened(bench, history)
            print(f"history {number}:", *short, sep="\n")
            bench.compare(short)
            raise
    if EXAMPLES == ALWAYS:
        assert not {what: seen[what] for what in SEEN if seen[what] < LEAST}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_of_credits_is_found(bench: ModelDatabase, name: str) -> None:
    fault = FAULTS[name]
    before = bench.runner.run(changed(bench.connection, fault.function, fault.change))
    try:
        first = FIRST.get(name, 0)
        assert bench.first_that_differs(range(first, first + LIMIT)) is not None
    finally:
        bench.runner.run(bench.connection.execute(";\n".join(before)))
