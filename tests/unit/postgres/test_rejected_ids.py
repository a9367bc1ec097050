"""A rejected call is found by its ids, in every form of a report, if the ingress or the meter rejected it."""

import json
from typing import Any

import msgspec
import pytest

from connectors.postgres.rejected_ids import ids_of
from schemas.records import Rejection


def refused(call: Any, stage: str = "ingress") -> Rejection:
    return Rejection("wrong_type", stage, 1, call=msgspec.Raw(json.dumps(call).encode()))


@pytest.mark.parametrize(
    ("call", "ids"),
    [
        ({"id": "r", "litellm_call_id": "c", "spend": []}, ("r", "c")),
        ({"request_id": "r", "id": "r"}, ("r",)),
        ({"id": 7, "litellm_call_id": None}, ("7",)),
        ({"transaction_id": "t", "external_subscription_id": "s"}, ("t",)),
        ({"cloud_event": {"id": "e", "source": "s"}}, ("e",)),
        ({"v": 1, "call": {"id": "r", "litellm_call_id": "c"}}, ("r", "c")),
        ({"v": 1, "call": {"cloud_event": {"id": "e"}}}, ("e",)),
        ({"v": 1, "call": {}, "metered": {"transaction_id": "t"}}, ("t",)),
        ({"id": "x" * 300}, ("sha256:0d4e2ca9e9cbced7a7a5380eb29e1a3783b9b6d0db72de36a1051038e1c1fbc7",)),
        ({"id": [], "litellm_call_id": {}, "request_id": True, "cloud_event": [], "call": 3}, ()),
        ([1], ()),
    ],
)
def test_the_ids_of_every_shape_are_read(call: Any, ids: tuple[str, ...]) -> None:
    assert ids_of(refused(call)) == ids


def test_nothing_is_read_of_what_could_not_be_parsed() -> None:
    assert ids_of(Rejection("not_json", "ingress", 1, length=3)) == ()
