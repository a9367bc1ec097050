"""A prefix of a credential, or a credential with a suffix, is refused at any length."""

import hmac
from base64 import b64encode
from hashlib import sha256

import pytest

from connectors.api.authorizer import FixedKeys
from connectors.ingest.auth import WebhookAuth
from connectors.lago.webhook_signatures import SIGNATURE, check_signature
from schemas.errors import Rejected
from tests.support.entrance import ENDPOINTS

TOKEN, BODY = "a-token-of-some-length", b'{"webhook_type":"invoice.paid"}'
LENGTHS = range(1, len(TOKEN))


@pytest.mark.parametrize("given", [*(TOKEN[:length] for length in LENGTHS), TOKEN + "x", TOKEN[1:], TOKEN.upper()])
def test_prefixes_and_suffixes_of_a_webhook_token_are_refused(given: str) -> None:
    auth = WebhookAuth(tokens=["another", TOKEN])
    assert auth.token_sender(f"Bearer {TOKEN}") is not None
    assert auth.token_sender(f"Bearer {given}") is None


@pytest.mark.parametrize("given", [*(TOKEN[:length] for length in LENGTHS), TOKEN + "x", ""])
async def test_prefixes_and_suffixes_of_the_master_key_and_lagos_key_are_refused(given: str) -> None:
    keys = FixedKeys(TOKEN, "lago-" + TOKEN)
    endpoint = ENDPOINTS[0]
    assert await keys.principal(TOKEN, endpoint) is not None
    assert await keys.principal("lago-" + TOKEN, endpoint) is not None
    assert await keys.principal(given, endpoint) is None
    assert await keys.principal(f"lago-{given}", endpoint) is None


async def test_an_empty_credential_matches_no_unset_key() -> None:
    for keys in (FixedKeys(None, None), FixedKeys("", ""), FixedKeys(TOKEN, None), FixedKeys(None, TOKEN)):
        assert await keys.principal("", ENDPOINTS[0]) is None


def test_prefixes_and_suffixes_of_lagos_signature_are_refused() -> None:
    signature = b64encode(hmac.digest(b"secret", BODY, sha256)).decode()
    check_signature({SIGNATURE: signature}, BODY, ["other", "secret"])
    for given in (*(signature[:length] for length in range(1, len(signature))), signature + "A", signature.lower()):
        with pytest.raises(Rejected) as refused:
            check_signature({SIGNATURE: given}, BODY, ["other", "secret"])
        assert refused.value.reason == "bad_signature"
