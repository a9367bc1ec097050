"""API keys over HTTP: made, seen, rotated and revoked by those who may do at least as much."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol
from unicodedata import normalize

from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, StringConstraints, field_validator

from connectors.access.keys import ApiKey, expiring, mint, successor
from connectors.access.scopes import EVERYTHING, SCOPES
from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.http.health import json_response
from connectors.http.problem import Problem
from schemas.errors import Rejected

_PATH = "/api/v1/access/keys"
#: At most a month: an overlap is there to bring the new token everywhere.
MAX_OVERLAP_HOURS = 720

Word = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")
]
#: As ids are compared: trimmed at its beginning, in normal form C.
Prefix = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"),
    AfterValidator(lambda text: normalize("NFC", text)),
]


class NewKey(BaseModel, extra="forbid"):
    """A key that is wanted.

    Fields:
        orgs: the only orgs it is for; null = all.
        customer_prefixes: how the ids of the LiteLLM customers begin that it may map; null = any for a key of all
            orgs, none that is not mapped to its orgs already for a key of some.
        expires_at: with its offset from UTC; null = never.
    """

    name: Annotated[Word, Field(examples=["billing dashboard"])]
    scopes: Annotated[list[str], Field(min_length=1, max_length=50, examples=[["orgs:read"]])]
    orgs: Annotated[list[Word], Field(min_length=1, max_length=1000)] | None = None
    customer_prefixes: Annotated[list[Prefix], Field(min_length=1, max_length=100, examples=[["acme-"]])] | None = None
    expires_at: AwareDatetime | None = None

    @field_validator("scopes")
    @classmethod
    def _known(cls, scopes: list[str]) -> list[str]:
        if not {EVERYTHING, *SCOPES}.issuperset(scopes):
            raise ValueError(f"should be of {', '.join(SCOPES)}, or {EVERYTHING}")
        return scopes


class Overlap(BaseModel, extra="forbid"):
    """How many hours the old key lives on."""

    overlap_hours: Annotated[float, Field(ge=0, le=MAX_OVERLAP_HOURS, examples=[24])] = 24


class Key(BaseModel):
    """A key without its token.

    Fields:
        id: `prefix` without `mb_`.
        prefix: the beginning of its token.
        state: `live`, `expired` or `revoked`.
        rotated_from: id of the key that it replaces.
    """

    id: str
    prefix: str
    name: str
    scopes: list[str]
    orgs: list[str] | None
    customer_prefixes: list[str] | None
    state: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    rotated_from: str | None


class MadeKey(Key):
    """A key with its token, which is shown this once."""

    token: str


class Keys(BaseModel):
    """The latest first, at most 1000."""

    keys: list[Key]


class KeyStore(Protocol):
    """Where keys are kept. All raise Unavailable."""

    async def all(self) -> list[ApiKey]:
        """The latest first."""

    async def get(self, key_id: str) -> ApiKey | None:
        """One key; None = there is none."""

    async def add(self, key: ApiKey) -> None:
        """Keep a new key."""

    async def replace(self, ending: ApiKey, new: ApiKey) -> None:
        """Keep `new`, and let the old key end when `ending` does, at the latest; both or neither."""

    async def revoke(self, key_id: str, at: datetime) -> None:
        """End a key; twice keeps the first moment."""


class KeyHandlers:
    """The handlers.

    Args:
        store: Raises: ConfigurationError: there is no Postgres.
        changed: is called after each change.
    """

    def __init__(self, store: Callable[[], KeyStore], now: Callable[[], datetime], changed: Callable[[], None]) -> None:
        self._store = store
        self._now = now
        self._changed = changed

    async def create(self, asked: AuthorizedRequest) -> web.Response:
        """201 with the token."""
        store, wanted, now = self._store(), asked.body, self._now()
        orgs = None if wanted.orgs is None else frozenset(wanted.orgs)
        ends, until = wanted.expires_at, asked.who.until
        if ends is not None and ends <= now:
            raise Problem(422, "already_expired", "expires_at is past")
        if until is not None and (ends is None or ends > until):
            ends = until
        key, token = mint(wanted.name, wanted.scopes, orgs, asked.who.actor, now, ends, wanted.customer_prefixes)
        if not key.is_within(asked.who.scopes, asked.who.orgs, asked.who.prefixes):
            raise _beyond()
        await asked.changing(None, key_shown(key, now))
        with _conflicts():
            await store.add(key)
        self._changed()
        return _secret({**key_shown(key, now), "token": token}, 201)

    async def listed(self, asked: AuthorizedRequest) -> web.Response:
        """Keys of all orgs are seen by those who may see all orgs."""
        found, now = await self._store().all(), self._now()
        return json_response({"keys": [key_shown(key, now) for key in found if _sees(asked, key)]})

    async def rotate(self, asked: AuthorizedRequest) -> web.Response:
        """201 with the new key's token."""
        store, now = self._store(), self._now()
        old = await self._own(store, asked)
        if old.state(now) != "live":
            raise Problem(409, "key_ended", "the key is revoked or expired: make a new one")
        key, token = successor(old, asked.who.actor, now, asked.who.until)
        ending = expiring(old, now, timedelta(hours=asked.body.overlap_hours))
        await asked.changing(key_shown(old, now), [key_shown(ending, now), key_shown(key, now)])
        with _conflicts():
            await store.replace(ending, key)
        self._changed()
        return _secret({**key_shown(key, now), "token": token}, 201)

    async def revoke(self, asked: AuthorizedRequest) -> web.Response:
        """200 with the key; twice changes nothing."""
        store, now = self._store(), self._now()
        key = await self._own(store, asked)
        if key.revoked_at is None:
            await asked.changing(key_shown(key, now), None)
            await store.revoke(key.key_id, now)
            self._changed()
        return json_response(key_shown(await store.get(key.key_id) or key, now))

    async def _own(self, store: KeyStore, asked: AuthorizedRequest) -> ApiKey:
        """A key that they see and may do as much as. Raises: Problem 404, 403."""
        key = await store.get(asked.part("key_id"))
        if key is None or not _sees(asked, key):
            raise Problem(404, "unknown_key", "there is no such key")
        if not key.is_within(asked.who.scopes, asked.who.orgs, asked.who.prefixes):
            raise _beyond()
        return key


@contextmanager
def _conflicts() -> Iterator[None]:
    """409 for what only fails because of what others have done meanwhile."""
    try:
        yield
    except Rejected as refusal:
        raise Problem(409, refusal.reason, refusal.detail) from refusal


def key_endpoints(desk: KeyHandlers) -> list[Endpoint]:
    """`POST|GET /api/v1/access/keys`, `DELETE /{key_id}`, `POST /{key_id}/rotate`."""
    one = f"{_PATH}/{{key_id}}"
    return [
        Endpoint(
            "POST",
            _PATH,
            "keys:write",
            "Make an API key; its token is shown this once.",
            desk.create,
            body=NewKey,
            answers={201: MadeKey},
            changes=True,
            sees_to_orgs=True,
        ),
        Endpoint(
            "GET",
            _PATH,
            "keys:read",
            "API keys, the latest first, without their tokens.",
            desk.listed,
            answers={200: Keys},
            sees_to_orgs=True,
        ),
        Endpoint(
            "POST",
            f"{one}/rotate",
            "keys:write",
            "Replace an API key; the old one lives on for some hours.",
            desk.rotate,
            body=Overlap,
            answers={201: MadeKey},
            changes=True,
            sees_to_orgs=True,
        ),
        Endpoint(
            "DELETE",
            one,
            "keys:write",
            "Revoke an API key; it is refused within seconds.",
            desk.revoke,
            answers={200: Key},
            changes=True,
            sees_to_orgs=True,
        ),
    ]


def key_shown(key: ApiKey, now: datetime) -> dict[str, Any]:
    """A key as JSON shows it; nothing secret."""
    return {
        "id": key.key_id,
        "prefix": key.prefix,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "orgs": None if key.orgs is None else sorted(key.orgs),
        "customer_prefixes": None if key.prefixes is None else sorted(key.prefixes),
        "state": key.state(now),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
        "rotated_from": key.rotated_from,
    }


def _sees(asked: AuthorizedRequest, key: ApiKey) -> bool:
    return asked.who.orgs is None or (key.orgs is not None and key.orgs <= asked.who.orgs)


def _beyond() -> Problem:
    return Problem(403, "exceeds_caller", "the key may do more than you may")


def _secret(body: object, status: int) -> web.Response:
    """No cache on the way keeps a token."""
    response = json_response(body, status)
    response.headers["Cache-Control"] = "no-store"
    return response
