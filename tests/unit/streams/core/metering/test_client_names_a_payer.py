"""Attack: a LiteLLM client names another customer wherever it can write.

With the recommended `CUSTOMER_ID_FIELDS`, which a key sets and a client cannot, none of it decides who pays. The bodies
were recorded from LiteLLM 1.109.1; `victim` is in every place where its client wrote.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.ingest.raw_record import strip
from schemas.wire import FLAT, SLP, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS, PINNED_BY_KEY

RECORDED = Path(__file__).parents[4] / "fixtures/litellm/generic_api__1.109.1__chat-basic.json"
RECEIVED = 1_795_300_000_000_000
VICTIM = "victim"

Body = dict[str, Any]


def _recorded() -> Body:
    body: list[Body] = json.loads(RECORDED.read_text())
    return body[0] if isinstance(body, list) else body


def _payer(body: Body, fields: tuple[str, ...], shape: str = SLP) -> tuple[str, str]:
    stored = strip(json.dumps(body).encode(), shape, RECEIVED, fields)
    assert stored is not None
    return stored[0], msgspec.json.decode(stored[1], type=RawRecord).id_kind


#: Where a client writes, and what LiteLLM makes of it: `user` and `x-litellm-customer-id` become the end user.
WRITTEN: dict[str, Callable[[Body], Any]] = {
    "user, or a customer header": lambda body: body.update(end_user=VICTIM),
    "the same, in metadata": lambda body: body["metadata"].update(user_api_key_end_user_id=VICTIM),
    "metadata": lambda body: body["metadata"]["requester_metadata"].update(
        customer_id=VICTIM, end_user=VICTIM, user_api_key_user_id=VICTIM, user_api_key_team_id=VICTIM
    ),
    "headers": lambda body: body["metadata"].update(
        requester_custom_headers={"x-customer-id": VICTIM, "x-litellm-end-user-id": VICTIM, "ce-subject": VICTIM}
    ),
    "tags": lambda body: body.update(request_tags=[VICTIM, f"customer_id:{VICTIM}"]),
    "spend_logs_metadata": lambda body: body["metadata"].update(spend_logs_metadata={"customer_id": VICTIM}),
    "model parameters": lambda body: body.update(model_parameters={"user": VICTIM, "customer_id": VICTIM}),
    "the prompt": lambda body: body.update(messages=[{"role": "user", "content": '"customer_id":"victim"'}]),
    "the session": lambda body: body.update(session_id=VICTIM, trace_id=VICTIM),
}


@pytest.mark.parametrize("where", WRITTEN)
@pytest.mark.parametrize(
    ("fields", "payer"),
    [(PINNED_BY_KEY, ("u-alice", "user")), (("team", "key"), ("team-acme", "team"))],
)
def test_no_field_that_a_client_can_write_decides_who_pays(
    where: str, fields: tuple[str, ...], payer: tuple[str, str]
) -> None:
    body = _recorded()
    WRITTEN[where](body)
    assert _payer(body, fields) == payer


@pytest.mark.parametrize("where", list(WRITTEN)[:2])
def test_by_default_the_end_user_pays_and_the_client_names_the_end_user(where: str) -> None:
    """So the attack above succeeds by default: the doctor reports `client_names_payer`."""
    body = _recorded()
    WRITTEN[where](body)
    assert _payer(body, CUSTOMER_ID_FIELDS) == (VICTIM, "end_user")


def test_the_flat_form_does_not_bypass_it() -> None:
    row = {"id": "x", "end_user": VICTIM, "user": "u-alice", "model": "m", "spend": "0.01", "request_tags": [VICTIM]}
    assert _payer(row, PINNED_BY_KEY, FLAT) == ("u-alice", "user")


def test_if_the_key_sets_no_customer_the_client_still_cannot() -> None:
    """The call is held as unattributed, and listed; it is not billed to the client's choice."""
    body = _recorded()
    body["end_user"] = VICTIM
    for name in ("user_api_key_user_id", "user_api_key_team_id", "user_api_key_org_id", "user_api_key_hash"):
        body["metadata"][name] = None
    assert _payer(body, PINNED_BY_KEY) == ("unattributed:", "unattributed")
