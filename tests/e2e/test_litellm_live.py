"""The newest compared LiteLLM, run: a few kinds of calls mean what is recorded, and a planted change does not pass."""

import asyncio
from pathlib import Path

import pytest

from tests.litellm_matrix.results import compared, recorded
from tests.litellm_matrix.run import Outcome, tried
from tests.litellm_matrix.versions import NEWEST, python_of

PYTHON = python_of(NEWEST)
#: Each is another meaning: tokens, ids, cost, customer, decisions.
FEW = ("chat", "stream-usage", "cache-hit", "prompt-cached", "retry-500", "messages", "background", "end-user")
#: After all that is expected has arrived: two flushes in which nothing else may come.
QUIET_S = 2.5

pytestmark = pytest.mark.skipif(
    PYTHON is None, reason=f"LiteLLM {NEWEST} is not installed: python -m tests.litellm_matrix --fetch"
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """As it is, and with the planted change. At once: half of the time LiteLLM is imported, by one processor each."""
    assert PYTHON is not None
    wanted = sum(len(recorded(NEWEST)[name]["calls"]) for name in FEW)
    plain, planted = (tmp_path_factory.mktemp(name) for name in ("plain", "planted"))

    async def both(python: Path) -> list[Outcome]:
        return await asyncio.gather(
            tried(plain, python, FEW, flush_s=1, quiet_s=QUIET_S, wanted=wanted),
            tried(planted, python, ("chat",), "doubled_cost", flush_s=1, quiet_s=0, wanted=1),
        )

    return dict(zip(("plain", "planted"), asyncio.run(both(PYTHON)), strict=True))


def test_a_few_kinds_of_calls_mean_what_is_recorded(outcomes: dict[str, Outcome]) -> None:
    assert compared(recorded(NEWEST), outcomes["plain"].results) == {}


def test_a_doubled_cost_is_seen(outcomes: dict[str, Outcome]) -> None:
    assert compared(recorded(NEWEST), outcomes["planted"].results).keys() == {"chat"}
