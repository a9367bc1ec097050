"""The public keys of an identity provider, read from its JWKS.

Keys are read again after ten minutes, and for an unknown key id at most once in ten seconds. While the provider does
not answer, the known keys stay valid for an hour.
Sources: RFC 7517 (JWK), RFC 8725 (JWT best practice), OpenID Connect Discovery 1.0.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import jwt
import msgspec
import structlog

from connectors.access.refreshed import Refreshed
from schemas.errors import Unavailable

#: Seconds: age at which keys are read again; the same for an unknown key id; how long keys stay valid without the
#: provider; time limit of a read.
FRESH_S, AGAIN_S, BELIEVED_S, ANSWER_S = 600.0, 10.0, 3600.0, 5.0
#: Limits: bytes of one response; keys of a provider.
MAX_BYTES, MAX_KEYS = 256 << 10, 100
#: Only asymmetric algorithms are accepted: with HS256, anybody could sign with the public key.
_BY_KIND: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ALGORITHMS: Final = frozenset(name for names in _BY_KIND.values() for name in names)
_DISCOVERY: Final = "/.well-known/openid-configuration"
_UNREADABLE = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, msgspec.MsgspecError, RecursionError)

_log = structlog.get_logger(__name__)


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _Keys(msgspec.Struct):
    keys: list[dict[str, Any]]


class KeySet:
    """The keys of one provider.

    Args:
        http: must have a timeout.
        issuer: as in the provider's tokens.
        jwks_url: `""` = the URL in the provider's discovery document.
        monotonic: seconds.
    """

    def __init__(self, http: httpx.AsyncClient, issuer: str, jwks_url: str, monotonic: Callable[[], float]) -> None:
        self._http = http
        self._issuer = issuer
        self._url = jwks_url
        self._keys = Refreshed[Mapping[tuple[str, str], jwt.PyJWK]](
            {}, self._read, _unread, monotonic, again_s=AGAIN_S, limit_s=ANSWER_S
        )

    async def key(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        """Return the key to verify a token with; None = the provider has no such key for this algorithm.

        Args:
            key_id: `kid` of the token; `""` = the provider's only key for the algorithm.

        Raises:
            Unavailable: `issuer_away`.
        """
        await self._keys.if_older(FRESH_S)
        if (found := self._cached_key(key_id, algorithm)) is None:
            await self._keys.if_older(AGAIN_S)
            found = self._cached_key(key_id, algorithm)
        age_s = self._keys.age_s()
        if age_s > BELIEVED_S or (found is None and age_s > FRESH_S):
            raise Unavailable("issuer_away", "the keys of OIDC_ISSUER cannot be read now")
        return found

    def _cached_key(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        if key_id:
            return self._keys.value.get((key_id, algorithm))
        fitting = [key for (_, name), key in self._keys.value.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _read(self) -> Mapping[tuple[str, str], jwt.PyJWK]:
        url = self._url
        if not url:
            discovery = msgspec.json.decode(
                await self._body(f"{self._issuer.rstrip('/')}{_DISCOVERY}"), type=_Discovery
            )
            if discovery.issuer != self._issuer:
                raise ValueError("the document is of another issuer")
            url = discovery.jwks_uri
        key_set = msgspec.json.decode(await self._body(url), type=_Keys)
        keys: dict[tuple[str, str], jwt.PyJWK] = {}
        for number, one in enumerate(key_set.keys[:MAX_KEYS]):
            for key in _usable(one):
                keys[str(one.get("kid") or f"#{number}"), key.algorithm_name] = key
        return keys

    async def _body(self, url: str) -> bytes:
        """Return the body at a URL. Redirects are not followed, because they could lead to any host. Raises: HTTPError,
        ValueError.
        """
        body = bytearray()
        async with self._http.stream("GET", url, follow_redirects=False) as answer:
            if answer.status_code != 200:
                raise ValueError("the status is not 200")
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("too large")
        return bytes(body)


def _unread(error: Exception) -> None:
    if not isinstance(error, _UNREADABLE):
        raise error
    _log.warning("issuer_keys_unread", error=type(error).__name__)


def _usable(key: dict[str, Any]) -> list[jwt.PyJWK]:
    """Return a key once for each algorithm that it may verify; nothing for a key that is symmetric, malformed, or not
    for signatures.
    """
    kind = str(key.get("kty"))
    allowed = _BY_KIND.get((kind, "" if kind == "RSA" else str(key.get("crv"))), ())
    if key.get("use", "sig") != "sig":
        return []
    try:
        return [jwt.PyJWK(key, name) for name in allowed if key.get("alg", name) == name]
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):  # the library does not check its input
        return []
