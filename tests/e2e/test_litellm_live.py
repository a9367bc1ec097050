"""The newest compared LiteLLM, run: a few kinds of calls have the recorded meaning.

That a change is seen is shown on the recorded calls: tests/contract/test_litellm_versions.py.
"""

from pathlib import Path

import pytest

from tests.litellm_matrix.results import compared, recorded
from tests.litellm_matrix.run import run_scenarios
from tests.litellm_matrix.versions import NEWEST, python_of

PYTHON = python_of(NEWEST)
#: Each is another meaning: tokens, ids, cost, customer, decisions.
FEW = ("chat", "stream-usage", "cache-hit", "prompt-cached", "retry-500", "messages", "background", "end-user")
#: After all that is expected has arrived: two flushes in which nothing else may come.
QUIET_S = 2.5

pytestmark = pytest.mark.skipif(
    PYTHON is None, reason=f"LiteLLM {NEWEST} is not installed: python -m tests.litellm_matrix --fetch"
)


@pytest.mark.long
async def test_a_few_kinds_of_calls_have_the_recorded_meaning(tmp_path: Path) -> None:
    assert PYTHON is not None
    wanted = sum(len(recorded(NEWEST)[name]["calls"]) for name in FEW)
    outcome = await run_scenarios(tmp_path, PYTHON, FEW, flush_s=1, quiet_s=QUIET_S, wanted=wanted)
    assert compared(recorded(NEWEST), outcome.results) == {}
