"""Users' keys of LLM providers over HTTP: store, list and revoke them; and the one endpoint that decrypts a key."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Protocol, Self

from aiohttp import web
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from connectors.access.provider_keys.cipher import KeyCipher, SealedKey
from connectors.access.provider_keys.keys import LEAST_CHARS, MOST_CHARS, PART, ProviderKey, new_key
from connectors.access.provider_keys.store import PostgresProviderKeys
from connectors.api.org_models import Id
from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import NO_STORE, json_response
from connectors.http.own_user import acting_user, acts_for_all, own_endpoint
from connectors.http.problem import Problem
from schemas.customer_id import is_secret
from schemas.errors import Unavailable

_PATH: Final = "/api/v1/provider-keys"
READ, WRITE, DECRYPT = "provider_keys:read", "provider_keys:write", "provider_keys:decrypt"

#: LiteLLM's names of providers, such as `openai` and `vertex_ai`.
Provider = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"),
    AfterValidator(str.lower),
    Field(examples=["openai"]),
]


def _printable(key: str) -> str:
    if not all("!" <= character <= "~" for character in key):
        raise ValueError("must be printable ASCII characters without spaces")
    return key


class NewProviderKey(BaseModel, extra="forbid", hide_input_in_errors=True):
    """A key of an LLM provider to store.

    Fields:
        api_key: the provider's key. No response shows it again.
        key_name: a user's key for a provider has a name of its own.
        user_id: whose key it is; null = the signed-in user's.
    """

    provider: Provider
    api_key: Annotated[
        str,
        Field(min_length=LEAST_CHARS, max_length=MOST_CHARS, examples=["the-key-of-the-provider"], repr=False),
        AfterValidator(_printable),
    ]
    key_name: Annotated[Id, Field(examples=["my key"])] = "default"
    user_id: Id | None = None

    @model_validator(mode="after")
    def _names_are_no_keys(self) -> Self:
        """Refuse a key in the field of a name, because names are stored and shown in the clear."""
        key = self.api_key.lower()
        for name in (self.provider, self.key_name, self.user_id or ""):
            if is_secret(name) or key in name.lower():
                raise ValueError("a name must not be a key")
        return self


class OfUser(BaseModel):
    """Whose keys to list; null = the signed-in user's, for another caller those of all users.

    Fields:
        user_id: whose keys to list; null = the signed-in user's, for another caller those of all users.
    """

    user_id: Id | None = None


class WantedKey(BaseModel, extra="forbid"):
    """The call that needs a key: its user and its provider.

    Fields:
        user_id: the user who makes the call.
        provider: the provider that the call goes to.
    """

    user_id: Id
    provider: Provider


class ProviderKeyShown(BaseModel):
    """A provider key without the key.

    Fields:
        id: the key's id, as the path of the endpoint that revokes it has it.
        masked_key: its beginning and its last four characters.
        is_active: calls of the user use the newest active key for their provider.
        rotation_due: the key should be replaced at the provider by then; `is_due`: that moment is past.
        is_due: true: `rotation_due` is past.
        use_count, last_used_at: of calls; up to ten seconds late.
    """

    id: str
    user_id: str
    provider: str
    key_name: str
    masked_key: str
    is_active: bool
    created_at: datetime
    created_by: str
    rotation_due: datetime
    is_due: bool
    last_used_at: datetime | None
    use_count: int
    revoked_at: datetime | None


class ProviderKeysShown(BaseModel):
    """At most 1000 keys, the latest first."""

    keys: list[ProviderKeyShown]


class ResolvedKey(BaseModel):
    """A key in the clear.

    Fields:
        key_id: the key's id.
        api_key: the provider's key in the clear: do not log it.
    """

    key_id: str
    user_id: str
    provider: str
    key_name: str
    api_key: str


class KeyUses(Protocol):
    """Records that a key is given to a caller: in the audit log before, and in the table later."""

    async def giving(self, actor: str, key: ProviderKey, address: str) -> None:
        """Record that the key will be given. Raises: Unavailable: the audit log cannot be written, so the key must not
        be given.
        """

    def outcome(self, outcome: str) -> None:
        """Count a request: `resolved`, `none` or `unreadable`."""


@dataclass(slots=True)
class ProviderKeyHandlers:
    """Everything below `/api/v1/provider-keys`.

    Args:
        store: returns the store; raises ConfigurationError if the deployment has no Postgres.
        cipher: returns the cipher; raises ConfigurationError if `PROVIDER_KEYS_SECRET` is not set.
        rotate_after: the age at which a key should be replaced.
        now: timezone-aware.
        address: the client's address, for the audit log.
    """

    store: Callable[[], PostgresProviderKeys]
    cipher: Callable[[], KeyCipher]
    uses: KeyUses
    rotate_after: timedelta
    now: Callable[[], datetime]
    address: Callable[[web.Request], str]

    @own_endpoint(
        "POST",
        _PATH,
        WRITE,
        body=NewProviderKey,
        refuses={409: ("provider_key_exists", "too_many_provider_keys"), 422: ("user_id_needed",)},
        answers={201: ProviderKeyShown},
    )
    async def add(self, authorized: AuthorizedRequest) -> web.Response:
        """Store a user's key of an LLM provider, encrypted; no response shows it again."""
        store, cipher, body, now = self.store(), self.cipher(), authorized.body, self.now()
        user_id, api_key = acting_user(authorized, WRITE, body.user_id), body.api_key
        actor = authorized.principal.actor
        key = new_key(user_id, body.provider, body.key_name, api_key, actor, now, self.rotate_after)
        sealed = cipher.sealed(key, api_key)
        await authorized.changing(None, provider_key_shown(key, now))
        await store.add(key, sealed, cipher.secret_ids)
        return json_response(provider_key_shown(key, now), 201)

    @own_endpoint(
        "GET", _PATH, READ, query=OfUser, refuses={422: ("user_id_needed",)}, answers={200: ProviderKeysShown}
    )
    async def listed(self, authorized: AuthorizedRequest) -> web.Response:
        """List the user's keys of LLM providers, masked."""
        given, now = authorized.query.user_id, self.now()
        everyone = given is None and not authorized.principal.user and acts_for_all(authorized, READ)
        store = self.store()
        keys = await (store.all() if everyone else store.of_user(acting_user(authorized, READ, given)))
        return json_response({"keys": [provider_key_shown(key, now) for key in keys]})

    @own_endpoint(
        "DELETE",
        f"{_PATH}/{{{PART}}}",
        WRITE,
        refuses={404: ("unknown_provider_key",)},
        answers={200: ProviderKeyShown},
    )
    async def revoke(self, authorized: AuthorizedRequest) -> web.Response:
        """Revoke a user's key and erase it: the next call does not get it. Repeating it changes nothing."""
        store, now = self.store(), self.now()
        key = await store.get(authorized.part(PART))
        own = key is not None and key.user_id == authorized.principal.user
        if key is None or not (own or acts_for_all(authorized, WRITE)):
            raise Problem(404, "unknown_provider_key", "there is no such key: GET /api/v1/provider-keys lists them")
        if key.is_active:
            await authorized.changing(provider_key_shown(key, now), None)
            await store.revoke(key.key_id, now)
        return json_response(provider_key_shown(await store.get(key.key_id) or key, now))

    @endpoint(
        "POST",
        f"{_PATH}/resolve",
        DECRYPT,
        body=WantedKey,
        refuses={404: ("no_provider_key",)},
        answers={200: ResolvedKey},
        per_call=True,
    )
    async def resolve(self, authorized: AuthorizedRequest) -> web.Response:
        """Get the key that a call of a user must use at a provider, in the clear: for the LiteLLM plugin."""
        store, cipher, wanted = self.store(), self.cipher(), authorized.body
        found = await store.live(wanted.user_id, wanted.provider)
        if found is None:
            self.uses.outcome("none")
            raise Problem(404, "no_provider_key", "the user has no active key for this provider")
        key, api_key = found[0], self._opened(cipher, *found)
        await self.uses.giving(authorized.principal.actor, key, self.address(authorized.request))
        self.uses.outcome("resolved")
        shown = {"key_id": key.key_id, "user_id": key.user_id, "provider": key.provider, "key_name": key.key_name}
        return json_response({**shown, "api_key": api_key}, 200, NO_STORE)

    def _opened(self, cipher: KeyCipher, key: ProviderKey, sealed: SealedKey) -> str:
        try:
            return cipher.opened(key, sealed)
        except Unavailable:
            self.uses.outcome("unreadable")
            raise


def provider_key_shown(key: ProviderKey, now: datetime) -> dict[str, Any]:
    """Return a key as JSON shows it, without anything secret."""
    values = asdict(key) | {"id": key.key_id, "is_active": key.is_active, "is_due": key.is_due(now)}
    return {name: values[name] for name in ProviderKeyShown.model_fields}
