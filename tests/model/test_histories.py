"""Faults that were found or feared, as histories: what is billed is what is owed."""

import pytest

from tests.model.histories import KNOWN
from tests.model.test_owed import compare


@pytest.mark.parametrize("name", KNOWN)
def test_a_history_that_was_billed_wrongly_once(name: str) -> None:
    compare(KNOWN[name])
