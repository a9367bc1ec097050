"""What the tolerant reader says about the form of a field: the example in it is accepted, and every path has one. What it
keeps is as short as what was sent.
"""

import json
from re import search
from typing import Any

import msgspec
import pytest

from schemas.errors import Rejected
from schemas.moments import MOMENT_FORM, parse_us
from schemas.money import AMOUNT_FORM, parse_amount
from schemas.wire import Call, CloudEvent
from streams.core.metering.customer_key import check_one_customer
from streams.core.metering.tolerant_reader import PartialCall, form_of, forms_of, loose_json

#: A value that no reader of a required field accepts.
WRONG: list[Any] = [[]]
OF_A_CALL = {
    **dict.fromkeys(("spend", "response_cost", "startTime", "endTime", "id", "user", "end_user", "api_key"), WRONG),
    "metadata": {"user_api_key_hash": WRONG},
    "properties": {"response_cost": WRONG},
}
OF_AN_EVENT = {"id": WRONG, "time": WRONG, "subject": WRONG, "data": {"cost": WRONG}}


def read(tree: dict[str, Any], of: type[Call] | type[CloudEvent]) -> PartialCall:
    parsed = loose_json(json.dumps(tree))
    return PartialCall(parsed, of)


@pytest.mark.parametrize(("tree", "of", "paths"), [(OF_A_CALL, Call, 10), (OF_AN_EVENT, CloudEvent, 4)])
def test_every_refused_field_has_a_form_whose_example_is_accepted(tree: Any, of: Any, paths: int) -> None:
    refused = read(tree, of)
    assert len(refused.bad) == paths
    for path in refused.bad:
        found = search(r"for example ([^,]+)", form_of(path))
        value: Any = found[1] if found else "a text"
        for name in reversed(path.split(".")):
            value = {name: value}
        assert not read(value, of).bad, path


def test_the_examples_of_a_time_and_an_amount_are_read() -> None:
    read_by = {MOMENT_FORM: parse_us, AMOUNT_FORM: parse_amount}
    for form, parse in read_by.items():
        example = search(r"for example ([^,]+)", form)
        assert example is not None and parse(example[1]), form


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("properties", "a JSON object"),
        ("cloud_event.data.cost", "a plain decimal number, for example 0.25"),
        ("nothing", ""),
        ("spend.more", ""),
        ("", ""),
        ("expected a plain decimal number", ""),
    ],
)
def test_an_object_has_a_form_and_what_is_no_field_has_none(path: str, form: str) -> None:
    assert form_of(path) == form


@pytest.mark.parametrize(
    "sent", ["1e-5000000", '"1e-5000000"', '" 1.5e-999999 "', "0e5000000", "1." + "0" * 99_999 + "1"]
)
def test_a_number_of_seconds_is_not_written_out(sent: str) -> None:
    """Earlier each of nine more zeros in the exponent was a gigabyte of memory."""
    tree = loose_json(f'{{"metadata": {{"usage_object": {{"seconds": {sent}}}}}}}')
    kept = msgspec.json.encode(PartialCall(tree, Call).kept)
    assert len(kept) < 100
    assert 0 <= msgspec.json.decode(kept)["metadata"]["usage_object"]["seconds"] <= 1


def test_the_names_of_fields_in_a_sentence_are_no_paths() -> None:
    with pytest.raises(Rejected) as refused:
        check_one_customer(Call(customer_id="a", end_user="b"))
    assert forms_of(refused.value.detail) == {}
    assert list(forms_of("customer_id, end_user")) == ["customer_id", "end_user"]
