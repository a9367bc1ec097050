"""The public keys of an identity provider, read from its JWKS and again when it signs with one that is not known.

Keys are read again after ten minutes; for an unknown key id at most once in ten seconds, whoever asks. While the
provider is away its keys are believed for an hour, then nothing is known.
Sources: RFC 7517 (JWK), RFC 8725 (JWT best practice), OpenID Connect Discovery 1.0.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import jwt
import msgspec
import structlog

from schemas.errors import Unavailable

#: Seconds; bytes of one answer; keys of a provider.
FRESH_S, AGAIN_S, BELIEVED_S, ANSWER_S = 600.0, 10.0, 3600.0, 5.0
MAX_BYTES, MAX_KEYS = 256 << 10, 100
#: Asymmetric only: with HS256 the public key would be the secret.
_BY_KIND: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ALGORITHMS: Final = frozenset(name for names in _BY_KIND.values() for name in names)
_DISCOVERY: Final = "/.well-known/openid-configuration"
_NEVER = float("-inf")

_log = structlog.get_logger(__name__)


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _Keys(msgspec.Struct):
    keys: list[dict[str, Any]]


class KeySet:
    """The keys of one provider.

    Args:
        http: its requests have a timeout of their own.
        jwks_url: `""` = what the provider's discovery document says.
        monotonic: seconds.
    """

    def __init__(self, http: httpx.AsyncClient, issuer: str, jwks_url: str, monotonic: Callable[[], float]) -> None:
        self._http = http
        self._issuer = issuer
        self._url = jwks_url
        self._monotonic = monotonic
        self._keys: dict[tuple[str, str], jwt.PyJWK] = {}
        self._read_at = self._tried_at = _NEVER
        self._reading = asyncio.Lock()

    async def key(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        """The key to verify with; None = the provider has no such key for this algorithm.

        Args:
            key_id: `""` = the only one there is.

        Raises:
            Unavailable: `issuer_away`.
        """
        await self._read_if_older(FRESH_S)
        if (found := self._found(key_id, algorithm)) is None:
            await self._read_if_older(AGAIN_S)
            found = self._found(key_id, algorithm)
        age_s = self._monotonic() - self._read_at
        if age_s > BELIEVED_S or (found is None and age_s > FRESH_S):
            raise Unavailable("issuer_away", "the keys of OIDC_ISSUER cannot be read now")
        return found

    def _found(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        if key_id:
            return self._keys.get((key_id, algorithm))
        fitting = [key for (_, name), key in self._keys.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _read_if_older(self, than_s: float) -> None:
        if self._monotonic() - self._read_at <= than_s:
            return  # nor wait for a read that somebody with an unknown key has begun
        async with self._reading:
            now = self._monotonic()
            if now - self._read_at <= than_s or now - self._tried_at <= AGAIN_S:
                return
            self._tried_at = now
            try:
                async with asyncio.timeout(ANSWER_S):
                    keys = await self._read()
            except (
                httpx.HTTPError,
                TimeoutError,
                ValueError,
                TypeError,
                AttributeError,
                msgspec.MsgspecError,
            ) as error:
                _log.warning("issuer_keys_unread", error=type(error).__name__)
                return
            self._keys, self._read_at = keys, now

    async def _read(self) -> dict[tuple[str, str], jwt.PyJWK]:
        url = self._url
        if not url:
            told = msgspec.json.decode(await self._body(f"{self._issuer.rstrip('/')}{_DISCOVERY}"), type=_Discovery)
            if told.issuer != self._issuer:
                raise ValueError("the document is another issuer's")
            url = told.jwks_uri
        found = msgspec.json.decode(await self._body(url), type=_Keys)
        keys: dict[tuple[str, str], jwt.PyJWK] = {}
        for number, one in enumerate(found.keys[:MAX_KEYS]):
            for key in _usable(one):
                keys[str(one.get("kid") or f"#{number}"), key.algorithm_name] = key
        return keys

    async def _body(self, url: str) -> bytes:
        """No redirect is followed: it could lead anywhere. Raises: HTTPError, ValueError."""
        body = bytearray()
        async with self._http.stream("GET", url, follow_redirects=False) as answer:
            if answer.status_code != 200:
                raise ValueError("no answer with 200")
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("too large")
        return bytes(body)


def _usable(key: dict[str, Any]) -> list[jwt.PyJWK]:
    """A key with each algorithm that it may verify; none for what is symmetric, not to sign with, or malformed."""
    kind = str(key.get("kty"))
    allowed = _BY_KIND.get((kind, "" if kind == "RSA" else str(key.get("crv"))), ())
    if key.get("use", "sig") != "sig":
        return []
    try:
        return [jwt.PyJWK(key, name) for name in allowed if key.get("alg", name) == name]
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):  # the library trusts what it is given
        return []
