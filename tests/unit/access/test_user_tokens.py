"""Users' OIDC tokens: a token that the provider did not sign for us, or that has expired, is refused; claims give
scopes and orgs.
"""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from connectors.access.jwks import AGAIN_S, BELIEVED_S, FRESH_S, MAX_BYTES, KeySet
from connectors.access.scopes import SCOPES
from connectors.access.user_tokens import LEEWAY_S, Users
from connectors.http.endpoint import Principal
from connectors.http.problem import Problem
from schemas.errors import Unavailable
from tests.support.entrance import ENDPOINTS, Clock

ISSUER, AUDIENCE = "https://id.example/", "meterbridge"
RSA, RSA_TOO = (rsa.generate_private_key(65537, 2048) for _ in range(2))
SHORT = rsa.generate_private_key(65537, 1024)
#: A second that no run of the tests has come to: the year 2100.
LATER = 4_102_444_800
P256, P384, ED = (
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
    (ed25519.Ed25519PrivateKey.generate()),
)


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    makers: dict[type, Callable[..., Any]] = {
        rsa.RSAPrivateKey: RSAAlgorithm.to_jwk,
        ec.EllipticCurvePrivateKey: ECAlgorithm.to_jwk,
        ed25519.Ed25519PrivateKey: OKPAlgorithm.to_jwk,
    }
    [make] = [make for kind, make in makers.items() if isinstance(key, kind)]
    return {**make(key.public_key(), as_dict=True), "kid": kid, **more}


@dataclass
class Provider:
    """An identity provider behind an HTTP transport."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [jwk(RSA, "one", use="sig", alg="RS256")])
    away: bool = False
    slow: bool = False
    asked: list[str] = field(default_factory=list)
    answers: dict[str, httpx.Response] = field(default_factory=dict)

    def __call__(self, request: httpx.Request) -> Any:
        self.asked.append(request.url.path)
        if self.slow:
            return asyncio.Event().wait()
        if self.away:
            raise httpx.ConnectError("away")
        if request.url.path in self.answers:
            return self.answers[request.url.path]
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json={"issuer": ISSUER, "jwks_uri": "https://id.example/keys"})
        return httpx.Response(200, json={"keys": self.keys})


NOW = datetime(2026, 11, 20, tzinfo=UTC)


class UserTokensOfProvider:
    """Verifies tokens of one provider."""

    def __init__(self, jwks_url: str = "https://id.example/keys", claims: tuple[str, str] = ("scope", "orgs")) -> None:
        self.provider, self.clock = Provider(), Clock()
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.provider))
        self.users = Users(
            KeySet(http, ISSUER, jwks_url, self.clock),
            ISSUER,
            [AUDIENCE, "other"],
            *claims,
            timedelta(days=30),
            lambda: NOW,
        )

    async def principal(self, token: str) -> Principal | None:
        return await self.users.principal(token, ENDPOINTS[0])


def claims(**changes: Any) -> dict[str, Any]:
    now = time.time()
    result = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now + 300, "scope": "orgs:read", "orgs": ["org_a"]}
    return {name: value for name, value in {**result, **changes}.items() if value is not None}


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "one", **changes: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def by_hand(head: dict[str, Any], body: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token that no library would create."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, body)]
    signature = base64.urlsafe_b64encode(sign(b".".join(parts))).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


async def test_a_valid_token_gives_the_user_scopes_and_orgs() -> None:
    assert await UserTokensOfProvider().principal(token()) == Principal(
        "user ada", frozenset({"orgs:read"}), frozenset({"org_a"}), NOW + timedelta(days=30), user="ada"
    )
    assert await UserTokensOfProvider(jwks_url="").principal(token()) is not None, "where its discovery document says"
    assert await UserTokensOfProvider().principal(token(aud=["x", "other"])) is not None


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "RS512"), (RSA, "PS256"), (P256, "ES256"), (P384, "ES384"), (ED, "EdDSA")],
)
async def test_every_asymmetric_signature_algorithm_is_accepted(key: Any, algorithm: str) -> None:
    users = UserTokensOfProvider()
    users.provider.keys = [jwk(key, "k")]
    assert await users.principal(token(key, algorithm, "k")) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://id.example"},
        {"iss": "https://evil.example/"},
        {"iss": None},
        {"aud": "somebody"},
        {"aud": []},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": LATER},
        {"iat": LATER},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_or_missing_claim_is_refused(changes: dict[str, Any]) -> None:
    assert await UserTokensOfProvider().principal(_signed(changes)) is None


def _signed(changes: dict[str, Any]) -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    return by_hand(
        {"alg": "RS256", "kid": "one"},
        claims(**changes),
        lambda text: RSA.sign(text, padding.PKCS1v15(), hashes.SHA256()),
    )


async def test_an_expired_token_has_its_own_reason_so_that_the_user_knows_to_log_in_again() -> None:
    with pytest.raises(Problem) as expired:
        await UserTokensOfProvider().principal(token(exp=time.time() - LEEWAY_S - 5))
    assert (expired.value.status, expired.value.reason) == (401, "token_expired")
    assert await UserTokensOfProvider().principal(token(exp=time.time() - LEEWAY_S + 5)) is not None, (
        "clocks differ a little"
    )
    assert await UserTokensOfProvider().principal(token(RSA_TOO, exp=1)) is None, (
        "the refusal of a forged token does not say that it has expired"
    )


async def test_a_token_without_a_signature_or_signed_with_a_public_value_is_refused() -> None:
    """With HS256 the provider's public key would serve as the secret."""
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def hs(text: bytes) -> bytes:
        return hmac.digest(public, text, sha256)

    users = UserTokensOfProvider()
    users.provider.keys.append({"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 48).decode(), "kid": "oct"})
    forged = [
        by_hand({"alg": "none", "kid": "one"}, claims(), lambda _: b""),
        by_hand({"alg": "None"}, claims(), lambda _: b""),
        by_hand({"alg": "HS256", "kid": "one"}, claims(), hs),
        by_hand({"alg": "HS256", "kid": "oct"}, claims(), lambda text: hmac.digest(b"s" * 48, text, sha256)),
        by_hand({"kid": "one"}, claims(), hs),
        by_hand({"alg": ["RS256"], "kid": "one"}, claims(), hs),
        by_hand({"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1}, claims(), hs),
        token(RSA_TOO),
        token(RSA, "PS256"),
        token(P256, "ES256"),
        token(kid=None)[:-4] + "AAAA",
        token().rpartition(".")[0] + ".",
    ]
    for one in forged:
        assert await users.principal(one) is None, one


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c", "..", "eyJ.eyJ.x", "a.b.c.d", "\ud800.\ud800.x", "é.é.é"])
async def test_a_text_that_is_no_token_is_refused(text: str) -> None:
    assert await UserTokensOfProvider().principal(text) is None


async def test_a_key_contained_in_the_token_itself_is_not_trusted() -> None:
    headers = {
        "kid": "one",
        "jwk": jwk(RSA_TOO, "one"),
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example",
    }
    users = UserTokensOfProvider()
    assert await users.principal(jwt.encode(claims(), RSA_TOO, "RS256", headers)) is None
    assert users.provider.asked == ["/keys"]


async def test_encryption_keys_short_keys_and_malformed_keys_verify_no_token() -> None:
    users = UserTokensOfProvider()
    users.provider.keys = [
        jwk(RSA, "one", use="enc"),
        jwk(SHORT, "short"),
        {"kty": "RSA", "kid": "half"},
        {"kty": 1},
        {},
    ]
    assert await users.principal(token()) is None
    assert await users.principal(token(SHORT, kid="short")) is None


async def test_a_token_without_a_key_id_is_accepted_only_if_the_provider_has_a_single_key() -> None:
    users = UserTokensOfProvider()
    assert await users.principal(token(kid=None)) is not None
    users = UserTokensOfProvider()
    users.provider.keys.append(jwk(RSA_TOO, "two", alg="RS256"))
    assert await users.principal(token(kid=None)) is None


async def test_an_unknown_key_id_causes_at_most_one_request_to_the_provider_in_an_interval() -> None:
    users = UserTokensOfProvider()
    assert await users.principal(token()) is not None
    users.provider.keys.append(jwk(RSA_TOO, "two"))
    users.clock.now += AGAIN_S + 1
    assert await users.principal(token(RSA_TOO, kid="two")) is not None
    for number in range(100):
        assert await users.principal(token(kid=f"guess {number}")) is None
    assert len(users.provider.asked) == 2


async def test_a_key_that_the_provider_withdrew_is_no_longer_accepted() -> None:
    users = UserTokensOfProvider()
    assert await users.principal(token()) is not None
    users.provider.keys.clear()
    users.clock.now += FRESH_S + 1
    assert await users.principal(token()) is None


async def test_keys_that_are_nested_beyond_any_parser_are_unread_and_the_known_ones_stay_valid() -> None:
    users = UserTokensOfProvider()
    assert await users.principal(token()) is not None
    users.provider.answers["/keys"] = httpx.Response(200, content=b'{"keys":' + b"[" * 100_000)
    users.clock.now += FRESH_S + 1
    assert await users.principal(token()) is not None


async def test_while_the_provider_is_unavailable_its_keys_are_valid_for_an_hour_and_no_token_is_called_wrong() -> None:
    users = UserTokensOfProvider()
    users.provider.away = True
    with pytest.raises(Unavailable, match="issuer_away"):
        await users.principal(token())
    users.provider.away = False
    users.clock.now += AGAIN_S + 1
    assert await users.principal(token()) is not None
    users.provider.away = True
    users.clock.now += BELIEVED_S - 1
    assert await users.principal(token()) is not None
    with pytest.raises(Unavailable, match="issuer_away"):
        await users.principal(token(kid="two"))
    users.clock.now += 2
    with pytest.raises(Unavailable, match="issuer_away"):
        await users.principal(token())


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(302, headers={"Location": "https://evil.example/keys"}),
        httpx.Response(404),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json={"no": "keys"}),
        httpx.Response(200, json={"keys": "none"}),
        httpx.Response(200, json=[1]),
        httpx.Response(200, content=b'{"keys": []}' + b" " * MAX_BYTES),
    ],
    ids=lambda answer: str(answer.status_code) + str(answer.content[:9]),
)
async def test_an_answer_that_is_no_key_set_keeps_the_known_keys(answer: httpx.Response) -> None:
    users = UserTokensOfProvider()
    assert await users.principal(token()) is not None
    users.provider.answers["/keys"] = answer
    users.clock.now += FRESH_S + 1
    assert await users.principal(token()) is not None
    assert len(users.provider.asked) == 2


async def test_the_discovery_document_of_another_issuer_is_refused() -> None:
    users = UserTokensOfProvider(jwks_url="")
    users.provider.answers["/.well-known/openid-configuration"] = httpx.Response(
        200, json={"issuer": "https://evil.example/", "jwks_uri": "https://evil.example/keys"}
    )
    with pytest.raises(Unavailable):
        await users.principal(token())
    assert users.provider.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    ("names", "told", "scopes", "orgs"),
    [
        (("scope", "orgs"), {"scope": "orgs:read openid plans:read"}, {"orgs:read", "plans:read"}, {"org_a"}),
        (("scope", "orgs"), {"scope": ["orgs:read", 7, "*"]}, {"orgs:read"}, {"org_a"}),
        (("scope", "orgs"), {"scope": "*"}, set(), {"org_a"}),
        (("scope", "orgs"), {"scope": None, "orgs": None}, set(), set()),
        (("scope", "orgs"), {"scope": 7, "orgs": {"org_a": 1}}, set(), set()),
        (("scope", "orgs"), {"orgs": "org_a org_b"}, {"orgs:read"}, {"org_a", "org_b"}),
        (("scope", "orgs"), {"orgs": ["*"]}, {"orgs:read"}, None),
        (("realm.roles", "https://x.y/orgs"), {"realm": {"roles": ["stats:read"]}, "https://x.y/orgs": ["o"]},
         {"stats:read"}, {"o"}),
        (("realm.roles", "realm.none.orgs"), {"realm": ["roles"]}, set(), set()),
    ],
)  # fmt: skip
async def test_scopes_and_orgs_are_those_of_the_claims_and_none_without_claims(
    names: tuple[str, str], told: dict[str, Any], scopes: set[str], orgs: set[str] | None
) -> None:
    """A token that names no org has access to no org, never to all of them."""
    principal = await UserTokensOfProvider(claims=names).principal(token(**told))
    assert principal is not None and scopes <= set(SCOPES)
    assert (principal.scopes, principal.orgs) == (scopes, orgs)


async def test_an_unknown_key_id_delays_no_other_user() -> None:
    users = UserTokensOfProvider()
    assert await users.principal(token()) is not None
    users.clock.now += AGAIN_S + 1
    users.provider.slow = True
    asking = asyncio.ensure_future(users.principal(token(kid="guess")))
    await asyncio.sleep(0.01)
    assert await asyncio.wait_for(users.principal(token()), 0.1) is not None
    asking.cancel()


@pytest.mark.parametrize("subject", ["ada\n", "ada\x1b[31m", "\u202eada", "a\u2066da", "ada\x00"])
async def test_a_subject_that_could_forge_a_log_line_is_refused(subject: str) -> None:
    assert await UserTokensOfProvider().principal(token(sub=subject)) is None
    assert await UserTokensOfProvider().principal(token(sub="Ada Lovelace, Ζωή")) is not None
