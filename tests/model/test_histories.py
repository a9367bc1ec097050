"""Histories with errors that were found or feared: billed amounts equal owed amounts."""

import pytest

from tests.model.histories import KNOWN
from tests.model.test_owed import compare


@pytest.mark.parametrize("name", KNOWN)
def test_a_history_that_was_once_billed_wrongly_is_billed_right(name: str) -> None:
    compare(KNOWN[name])
