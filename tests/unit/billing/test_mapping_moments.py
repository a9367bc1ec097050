"""A moment of a mapping that cannot be read is explained in one sentence, without the text."""

import pytest
from pydantic import ValidationError

from connectors.billing.mapping_bodies import MappingRow
from schemas.moments import MOMENT_FORM


@pytest.mark.parametrize(("text", "why"), [("soon", ""), ("2026-11-31", "; there is no such moment, day")])
def test_the_sentence_says_once_what_is_expected(text: str, why: str) -> None:
    """Earlier it named ISO 8601 twice."""
    with pytest.raises(ValidationError) as refused:
        MappingRow(litellm_customer_id="a", lago_customer_id="b", lago_organization_id="c", effective_from=text)  # type: ignore[arg-type]
    (error,) = refused.value.errors()
    assert error["msg"].startswith(f"Value error, must be {MOMENT_FORM}{why}") and error["msg"].count("ISO 8601") == 1
