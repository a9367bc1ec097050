"""Decides about calls without an answer of Meterbridge: refuses them, or allows them within a limit in money."""

import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from meterbridge_litellm.counts import Counts
from meterbridge_litellm.settings import PluginSettings

_PARTS: Final = 20


class Refused(Exception):
    """The call must not be made. Attributes: `status` for HTTP, `reason` a stable code, `detail` a sentence for people."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail = status, reason, detail


class Unasked:
    """Applies the settings `fail`, `fail_open_usd` and `fail_open_account_usd` if Meterbridge does not say whether a
    call may be made. Each account has its own limit, so that one client with many unanswered requests cannot use the
    whole limit.

    An estimate counts until Meterbridge answers and the call is at least `reserve_seconds` old, which is the lifetime
    of a reservation. A single success does not reset the sum; otherwise there would be no limit if 429 and successes
    alternate.
    """

    def __init__(
        self, settings: PluginSettings, counts: Counts, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._counts, self._monotonic = settings, counts, monotonic
        self._part_s = settings.reserve_seconds / _PARTS
        self._sums: deque[tuple[float, dict[str, Decimal]]] = deque()  # estimates of calls up to a moment, by account

    @property
    def total(self) -> Decimal:
        """Return the sum of the estimates that count, dollars."""
        return sum((amount for _, accounts in self._sums for amount in accounts.values()), Decimal(0))

    def of_account(self, account: str) -> Decimal:
        """Return the part of `total` that belongs to one account."""
        return sum((accounts.get(account, Decimal(0)) for _, accounts in self._sums), Decimal(0))

    def answered(self) -> None:
        """Register a response of Meterbridge."""
        while self._sums and self._sums[0][0] <= self._monotonic() - self._settings.reserve_seconds:
            self._sums.popleft()

    def go_on(self, estimate: Decimal, why: str, account: str) -> None:
        """Allow a call of an account without an answer, and count it. Raises: Refused: 503; the call is counted, too."""
        settings, total = self._settings, self.total + estimate
        if (
            settings.fail == "open"
            and total <= settings.fail_open_usd
            and self.of_account(account) + estimate <= settings.fail_open_account_usd
        ):
            now = self._monotonic()
            if not self._sums or now > self._sums[-1][0]:
                self._sums.append((now + self._part_s, {}))
            accounts = self._sums[-1][1]
            accounts[account] = accounts.get(account, Decimal(0)) + estimate
            self._counts.add("admitted_unasked")
            self._counts.warn("calls_admitted_unasked", why=why, sum_usd=str(total))
            return
        self._counts.add("refused_unasked")
        self._counts.warn("calls_refused_unasked", why=why)
        raise Refused(503, "credit_check_unavailable", "credit cannot be checked now; try again")
