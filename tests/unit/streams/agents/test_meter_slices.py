"""How a fetch batch is split into the slices that the meter folds in one step."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import WriteOff
from streams.agents import meter
from streams.state.step_writes import CONTROL, WRITE_OFF
from tests.fuzz.stored import Stored

CALL = Stored(b"{}")
ORDER = Stored(msgspec.json.encode(WriteOff("audit", 1, 1)), headers=[(CONTROL, WRITE_OFF)])


@given(st.lists(st.sampled_from([CALL, CALL, CALL, ORDER]), max_size=60))
def test_every_record_is_in_one_slice_in_order_and_a_write_off_order_has_a_slice_of_its_own(records: list[Any]) -> None:
    """An order may take several transactions, and a step with forwarded records ends its slice: together they would
    skip the rest of the order.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(meter, "FOLD_LIMIT", 7)
        slices = list(meter._steps(records))
    assert [record for part in slices for record in part] == records
    assert all(0 < len(part) <= 7 for part in slices)
    assert all(ORDER not in part or len(part) == 1 for part in slices)
