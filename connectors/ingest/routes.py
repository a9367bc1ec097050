"""The routes of the ingress: it receives usage over HTTP, and answers with 2xx only when the usage is durable."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil

import msgspec
import structlog
from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION

from connectors.http.body_reader import BodyReader
from connectors.http.client_address import ClientAddressPolicy
from connectors.http.connections import admitted
from connectors.http.problem import CLOSES, Problem, try_again
from connectors.http.rate_limit import SenderRateLimiter
from connectors.http.unready import SENTENCES
from connectors.ingest.auth import ExpiredSignature, WebhookAuth
from connectors.ingest.cloud_events import event_of, holds_events, is_in_headers
from connectors.ingest.rejection_record import InvalidElement
from connectors.ingest.shared_deadline import SharedDeadline
from connectors.ingest.store import ElementStore, StoreOutcome
from schemas.errors import Unavailable
from schemas.plurals import numbered
from schemas.reasons import TOO_MANY
from schemas.wire import CLOUDEVENT, FLAT, INTEGRATION, LAGO
from streams.core.metering.tolerant_reader import forms_of

_STATUS = {"status": "accepted", "message": "Event queued for processing"}
#: The outcome if no element is a call. The HTTP status stays 202, because a repeat of the body would change nothing.
_NONE_STORED = {"status": "rejected", "message": "No element was stored as a call; see rejected"}
_ALL_ACCEPTED = msgspec.json.encode(_STATUS)
#: The outcome of `[]`, `[null]` or `{"events": []}`.
_NOTHING_SENT = msgspec.json.encode(
    {**_STATUS, "message": "The body holds no event, so nothing was queued", "accepted": 0}
)
#: The maximum number of rejected elements that are listed with details, so that the response is not larger than the
#: body.
_DETAILED = 20
#: The maximum number of fields of such an element whose expected form is given.
_EXPLAINED = 5
_UNAVAILABLE_RETRY_S = 5
#: The detail of a 503 for each cause that an operator can act on; for all other causes it is `_NOT_NOW`.
_CAUSES = {reason: SENTENCES[reason] for reason in ("topics_unchecked", "kafka_unavailable")}
#: The id and the customer of an event in binary mode are in the headers. A person who has recorded a signed post could send
#: it again as other calls of any customer.
_UNSIGNED = (
    "a signature covers only the body: send the event in structured mode (`application/cloudevents+json`), or a token"
)
_NOT_NOW = "records cannot be stored now: send the same body again"
_GUESSING_RETRY_S = 1

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressDeps:
    """The dependencies of the ingress.

    Fields:
        timeout_s: limit of one request, including its body (`WEBHOOK_TIMEOUT`); longer than the producer's delivery timeout.
        max_body_bytes, max_bytes_in_flight: limits of one body, and of all bodies that are not answered yet.
        origins: which addresses may send; None = all.
        pace: the rate limit of each sender; None = no limit.
        on_request: called with (source, HTTP status) for every request; 499: the sender closed the connection.
        on_elements: called with (`accepted`, `ignored` or a reason of rejection, how many).
        on_left_out: called with the number of accepted elements that the answer lists in `left_out`, or would list.
        watch_bytes: called once with a function that returns the bytes of bodies in flight.
        is_guessing: whether the address of a request had too many refused requests recently, so that its body is not read to
            check a signature.
    """

    store: ElementStore
    auth: WebhookAuth
    timeout_s: float
    max_body_bytes: int
    max_bytes_in_flight: int = 256 << 20
    origins: ClientAddressPolicy | None = None
    pace: SenderRateLimiter | None = None
    on_request: Callable[[str, int], None] = lambda _source, _status: None
    on_elements: Callable[[str, int], None] = lambda _outcome, _count: None
    on_left_out: Callable[[int], None] = lambda _count: None
    watch_bytes: Callable[[Callable[[], int]], None] = lambda _bytes_in_flight: None
    is_guessing: Callable[[web.BaseRequest], bool] = lambda _request: False


@dataclass(frozen=True, slots=True)
class _Route:
    """A route for one kind of sender; `shape` applies to elements whose fields do not show their shape."""

    path: str
    source: str
    shape: str


#: Lago's ingest API is answered like the other routes: LiteLLM's `lago` callback accepts any 2xx and does not read the body.
ROUTES = (
    _Route("/webhook/litellm/usage", "litellm", FLAT),
    _Route("/webhooks/litellm", "integration", INTEGRATION),
    _Route("/webhooks/litellm/batch", "integration", INTEGRATION),
    _Route("/api/v1/events", "lago", LAGO),
    _Route("/api/v1/events/batch", "lago", LAGO),
    _Route("/openmeter/api/v1/events", "openmeter", CLOUDEVENT),
)


def ingress_routes(deps: IngressDeps) -> list[web.RouteDef]:
    """Return the routes of the ingress, for an application that also has other routes."""
    ingress = _Ingress(deps)
    paths = [(route.path + slash, route) for route in ROUTES for slash in ("", "/")]
    return [web.post(path, partial(ingress.answer, route)) for path, route in paths]


class _Ingress:
    def __init__(self, deps: IngressDeps) -> None:
        self._deps = deps
        self._intake = BodyReader(deps.max_body_bytes, deps.max_bytes_in_flight)
        deps.watch_bytes(lambda: self._intake.bytes_in_flight)
        self._patience = SharedDeadline(deps.timeout_s)
        self._refusing = False

    async def answer(self, route: _Route, request: web.Request) -> web.Response:
        """Answer 202 if every element is durable; otherwise 400, 401, 403, 408, 413, 415 or 503 as problem JSON."""
        status = 500
        try:
            response = self._accept(await self._take(route, request))
            status = response.status
        except (Problem, InvalidElement, Unavailable) as error:
            response = self._refuse(error)
            status = response.status
        except ConnectionError:
            status = 499
            raise
        finally:
            self._deps.on_request(route.source, status)
        return response

    async def _take(self, route: _Route, request: web.Request) -> StoreOutcome:
        body: bytes | None = None
        try:
            with self._patience:
                proof = self._admit_before_reading(request)
                if proof is None:
                    body = await self._intake.read(request)
                else:
                    body = await self._intake.read(request, prove=proof.prove)
                    admitted(request)
                    self._keep_pace(proof.sender)
                if (event := event_of(request.headers, body)) is not None:
                    return await self._deps.store.keep(event, CLOUDEVENT)
                shape = CLOUDEVENT if holds_events(request.headers) else route.shape
                return await self._deps.store.keep(body, shape)
        except TimeoutError:
            if body is None:
                raise Problem(408, "body_too_slow", "the body did not arrive in time", CLOSES) from None
            raise try_again("ack_timeout", "Kafka did not answer in time", _UNAVAILABLE_RETRY_S) from None
        finally:
            if body is not None:
                self._intake.release(body)

    def _admit_before_reading(self, request: web.Request) -> "_Proof | None":
        """Return the check that needs the body; None = the sender is known. Raises: Problem 401, 403, 503: no body
        could change the result.
        """
        auth, headers, origins = self._deps.auth, request.headers, self._deps.origins
        if origins is not None and not origins.admit(request.remote, headers):
            raise Problem(403, "address_not_allowed", "usage from this address is not accepted", CLOSES)
        sender = "anybody" if auth.is_open else auth.token_sender(headers.get(AUTHORIZATION))
        if sender:
            admitted(request)
            self._keep_pace(sender)
            return None
        if auth.may_be_signed(headers):
            if is_in_headers(headers):
                raise Problem(401, "unsigned_attributes", _UNSIGNED, CLOSES)
            if self._deps.is_guessing(request):
                raise try_again(
                    "too_many_refused", "this address had too many refused requests recently", _GUESSING_RETRY_S
                )
            return _Proof(auth.signing_sender, headers)
        raise _unknown_sender(with_other_scheme=auth.has_other_scheme(headers.get(AUTHORIZATION)))

    def _keep_pace(self, sender: str) -> None:
        pace = self._deps.pace
        if pace is not None and (wait_s := pace.wait_s(sender)):
            raise try_again("rate_limited", "this sender sends more requests than WEBHOOK_RATE_LIMIT", ceil(wait_s))

    def _accept(self, outcome: StoreOutcome) -> web.Response:
        if self._refusing:
            self._refusing = False
            _log.info("ingest_recovered")
        count = self._deps.on_elements
        if outcome.accepted:
            count("accepted", outcome.accepted)
        if outcome.ignored:
            count("ignored", outcome.ignored)
        if outcome.left_out:
            self._deps.on_left_out(len(outcome.left_out))
        for refused in outcome.rejected:
            count(refused.reason, 1)
        return web.Response(status=202, body=_answer_of(outcome), content_type="application/json")

    def _refuse(self, error: Problem | InvalidElement | Unavailable) -> web.Response:
        if isinstance(error, Problem):
            return error.response()
        if isinstance(error, InvalidElement):
            self._deps.on_elements(error.reason, 1)
            return Problem(413 if error.reason == TOO_MANY else 400, error.reason, error.detail).response()
        if not self._refusing:
            self._refusing = True
            _log.warning("records_refused", reason=error.reason, detail=error.detail)
        return try_again(error.reason, _CAUSES.get(error.reason, _NOT_NOW), _UNAVAILABLE_RETRY_S).response()


class _Proof:
    """The sender that signed a body; it is known when the body was read. See `WebhookAuth.signing_sender`."""

    __slots__ = ("_headers", "_signing_sender", "sender")

    def __init__(
        self,
        signing_sender: Callable[[Mapping[str, str], bytes | Iterable[bytes]], str | None],
        headers: Mapping[str, str],
    ) -> None:
        self._signing_sender = signing_sender
        self._headers = headers
        self.sender = ""

    def prove(self, pieces: bytes | Iterable[bytes]) -> None:
        """Check the signature. Raises: Problem 401."""
        try:
            sender = self._signing_sender(self._headers, pieces)
        except ExpiredSignature as stale:
            raise Problem(401, stale.reason, stale.detail) from None
        if sender is None:
            raise _unknown_sender()
        self.sender = sender


def _answer_of(outcome: StoreOutcome) -> bytes:
    if not outcome.rejected and not outcome.left_out:
        return _ALL_ACCEPTED if outcome.accepted else _NOTHING_SENT
    listed = [
        {"index": index, "reason": reason, **({"detail": _explained(detail)} if detail and place < _DETAILED else {})}
        for place, (index, reason, detail) in enumerate(sorted(outcome.rejected))
    ]
    status = _STATUS if outcome.accepted else _NONE_STORED
    answer: dict[str, object] = {**status, "accepted": outcome.accepted}
    if listed:
        answer["rejected"] = listed
    if outcome.left_out:
        left_out = sorted(outcome.left_out)[:_DETAILED]
        answer["left_out"] = [{"index": index, "detail": _explained(detail)} for index, detail in left_out]
    return msgspec.json.encode(answer)


def _explained(detail: str) -> str:
    """Return the detail of a refused element; if it names fields, with what is expected in each of them."""
    forms = list(forms_of(detail).items())
    if not forms:
        return detail
    told = "; ".join(f"{path}: expected {form}" for path, form in forms[:_EXPLAINED])
    return f"{told}; and {numbered(len(forms) - _EXPLAINED, 'more field')}" if len(forms) > _EXPLAINED else told


def _unknown_sender(*, with_other_scheme: bool = False) -> Problem:
    detail = "neither a known token (`Authorization: Bearer <one of WEBHOOK_TOKEN>`) nor a valid signature"
    if with_other_scheme:
        detail = "the token is known, but `Bearer` and a space are missing before it: send `Authorization: Bearer <one of WEBHOOK_TOKEN>`"
    return Problem(401, "unknown_sender", detail, {"WWW-Authenticate": "Bearer"})
