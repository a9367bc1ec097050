"""Posts batches of records to the ingress: signed with their time, or with a token.

A record that the ingress refuses because of its content must not block other records. So a refused batch is halved
until only this record is left, which is returned as refused. This is done only if the ingress itself answers and
accepts other records, because a wrong address or a proxy in between may refuse everything.
"""

import hmac
import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import httpx

from meterbridge_litellm.counts import Counts
from meterbridge_litellm.settings import PATH, PluginSettings

_LONGEST_PAUSE_S: Final = 30.0
#: Statuses that can be caused by a record. 500 is an error of the server, so it counts only if it repeats.
_REFUSED: Final = frozenset({400, 413})
_BROKEN: Final = 500
_REPEATS: Final = 3
#: A body without a call: the ingress accepts and ignores it.
_NOTHING: Final = b"[null]"


class Posted(NamedTuple):
    """The outcome of a batch.

    Fields:
        problem: `""` = the ingress has all records except `refused`; otherwise a word for the log, and the batch must
            be posted again.
        refused: records that the ingress refuses from every sender, each with the status.
        asked_s: the seconds that the ingress asks to wait.
    """

    problem: str = ""
    refused: tuple[tuple[bytes, int], ...] = ()
    asked_s: float = 0.0


class _Answer(NamedTuple):
    """The response to one request; `status`: 0 = there was none; `problem`: `""` = the ingress has accepted the batch."""

    problem: str
    status: int
    asked_s: float = 0.0


class Poster:
    """Posts to one ingress. For one thread.

    Args:
        http: its transport sends the posts.
        stopping: returns whether the process is ending; then a batch is no longer halved.
    """

    def __init__(
        self, settings: PluginSettings, counts: Counts, http: httpx.Client, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._settings, self._counts, self._http, self._stopping = settings, counts, http, stopping
        self._url = settings.url.rstrip("/") + PATH
        self._most: int | None = None

    def post(self, records: Sequence[bytes], failures: int = 0) -> Posted:
        """Post a batch. A repeated post changes nothing at the ingress.

        Args:
            failures: the number of earlier failed posts of this batch.
        """
        own = _REFUSED | {_BROKEN} if failures >= _REPEATS else _REFUSED
        refused: list[tuple[bytes, int]] = []
        accepted, too_large = 0, False
        most = self._most or len(records)
        todo = [records[start : start + most] for start in range(0, len(records), most)][::-1]
        while todo:
            part = todo.pop()
            answer = self._try(part)
            if not answer.problem:
                accepted = max(accepted, len(part))
            elif answer.status not in own or self._stopping():
                return Posted(answer.problem, (), answer.asked_s)
            elif len(part) > 1:
                too_large = too_large or answer.status == httpx.codes.REQUEST_ENTITY_TOO_LARGE
                half = len(part) // 2
                todo += [part[half:], part[:half]]
            else:
                refused.append((part[0], answer.status))
        if refused and not accepted and not self._takes_others(refused):
            return Posted(f"http_{refused[0][1]}")
        # One large record must not make all later batches small, so the size grows again.
        self._most = max(accepted, 1) if too_large else self._most and self._most * 2
        return Posted("", tuple(refused))

    def _takes_others(self, refused: Sequence[tuple[bytes, int]]) -> bool:
        """Return whether the ingress accepts a body without a record. This says nothing about 500, because Kafka is not
        used for such a body.
        """
        return all(status in _REFUSED for _, status in refused) and not self._send(_NOTHING)[0].problem

    def _try(self, records: Sequence[bytes]) -> _Answer:
        answer, reply = self._send(b"[" + b",".join(records) + b"]")
        if not answer.problem:
            self._counts.add("posted", len(records))
            if rejected := [one for one in reply.get("rejected") or () if isinstance(one, dict)]:
                self._counts.add("rejected", len(rejected))
                self._counts.warn("usage_rejected", reasons=dict(Counter(str(one.get("reason")) for one in rejected)))
        return answer

    def _send(self, body: bytes) -> tuple[_Answer, dict[str, Any]]:
        try:
            answer = self._http.post(self._url, content=body, headers=self._headers(body))
            reply: Any = answer.json() if answer.status_code == httpx.codes.ACCEPTED else None
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            return _Answer(type(error).__name__, 0), {}
        # A login page or another proxy can answer 2xx too.
        if isinstance(reply, dict) and reply.get("status") in {"accepted", "rejected"}:
            return _Answer("", answer.status_code), reply
        asked = answer.headers.get("retry-after", "")
        wait_s = min(float(asked), _LONGEST_PAUSE_S) if asked.isdecimal() else 0.0
        return _Answer(f"http_{answer.status_code}", answer.status_code, wait_s), {}

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._settings.secret:
            now = str(int(time.time()))
            signed = hmac.new(self._settings.secret.encode(), now.encode() + b"." + body, sha256).hexdigest()
            headers["X-Webhook-Signature"] = f"t={now},v1={signed}"
        else:
            headers["Authorization"] = f"Bearer {self._settings.token}"
        return headers
