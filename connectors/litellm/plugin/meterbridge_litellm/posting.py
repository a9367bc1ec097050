"""Posts batches of records to the ingress, until it has them: signed with their time, or with a token."""

import hmac
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

import httpx

from meterbridge_litellm.counts import Counts
from meterbridge_litellm.settings import Settings

PATH: Final = "/webhook/litellm/usage"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0


class Poster:
    """Posts to one ingress. For one thread.

    Args:
        http: its transport is what is posted with.
        closing: set when the process ends, which ends a pause.
    """

    def __init__(self, settings: Settings, counts: Counts, http: httpx.Client, closing: threading.Event) -> None:
        self._settings, self._counts, self._http, self._closing = settings, counts, http, closing
        self._url = settings.url.rstrip("/") + PATH
        self._most: int | None = None
        self._pause_s = 0.0

    def post(self, records: Sequence[bytes]) -> bool:
        """Post all records; False after a pause if not all of them are there. To post them again changes nothing there."""
        start, most = 0, self._most or len(records)
        while start < len(records):
            part = records[start : start + most]
            problem, asked_s = self._try(part)
            if problem == "http_413" and most > 1:
                most = self._most = most // 2
                continue
            if problem:
                self._counts.tell("posting_fails", why=problem, waiting=len(records))
                self._pause_s = min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                self._closing.wait(max(asked_s, self._pause_s * random.uniform(0.5, 1.0)))
                return False
            start += len(part)
        self._pause_s = 0.0
        return True

    def _try(self, records: Sequence[bytes]) -> tuple[str, float]:
        """Why it failed, `""` = the ingress has all of them; and how many seconds it asks us to wait."""
        body = b"[" + b",".join(records) + b"]"
        try:
            answer = self._http.post(self._url, content=body, headers=self._headers(body))
            told: Any = answer.json() if answer.status_code == httpx.codes.ACCEPTED else None
        except (httpx.HTTPError, ValueError) as error:
            return type(error).__name__, 0.0
        # A login page or another proxy can answer 2xx too.
        if not isinstance(told, dict) or told.get("status") not in {"accepted", "rejected"}:
            asked = answer.headers.get("retry-after", "")
            return f"http_{answer.status_code}", min(float(asked), _LONGEST_PAUSE_S) if asked.isdecimal() else 0.0
        self._counts.add("posted", len(records))
        if rejected := told.get("rejected") or []:
            self._counts.add("rejected", len(rejected))
            self._counts.tell("usage_rejected", reasons=dict(Counter(str(one.get("reason")) for one in rejected)))
        return "", 0.0

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._settings.secret:
            now = str(int(time.time()))
            signed = hmac.new(self._settings.secret.encode(), now.encode() + b"." + body, sha256).hexdigest()
            headers["X-Webhook-Signature"] = f"t={now},v1={signed}"
        else:
            headers["Authorization"] = f"Bearer {self._settings.token}"
        return headers
