"""The middleware for services on ASGI: Starlette, FastAPI and whatever else speaks it. It needs none of them."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from connectors.middleware.calls import Answered, Billing, Who
from connectors.middleware.recorder import Recorder
from connectors.middleware.request_ids import ID_HEADERS, RETURNED
from connectors.middleware.who import get_current_org

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class OrgBillingMiddleware:
    """Records one `api_call` for each answered request of an org, with the end of the answer.

    `app.add_middleware(OrgBillingMiddleware)`; for the arguments see `connectors.middleware.aio.org_billing_middleware`.
    """

    def __init__(
        self,
        app: App,
        recorder: Recorder | None = None,
        *,
        who: Who = get_current_org,
        id_headers: Sequence[str] = ID_HEADERS,
    ) -> None:
        self._app = app
        self._billing = Billing(recorder, who, id_headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An answer that has begun is recorded, also if the client leaves before its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # what is put in there further inside must be seen here
        made, asked = self._billing.made_id(), _headers(scope["headers"])
        returned = self._billing.returned_id(asked, made)
        begun: list[Answered] = []

        def note() -> None:
            while begun:
                self._billing.note(scope, begun.pop())

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = _with_id(message, returned)
                answered = _headers(message.get("headers", ()))
                begun.append(Answered(scope["method"], scope["path"], asked, message["status"], answered, made))
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                note()
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            note()


def _with_id(start: Message, returned: str | None) -> Message:
    """The beginning of an answer, with the request's id where it has none of its own."""
    headers = start.get("headers", ())
    if returned is None or RETURNED.lower() in _headers(headers):
        return start
    return {**start, "headers": [*headers, (RETURNED.lower().encode(), returned.encode())]}


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """By lower-case name; of several with one name the first."""
    found: dict[str, str] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found
