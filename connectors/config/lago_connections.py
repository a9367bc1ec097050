"""The access to each Lago organisation, as values for the code that does not see the settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

import structlog

from schemas.organizations import DEFAULT, DEFAULT_LABEL

_log = structlog.get_logger(__name__)
#: How often a file with a key is checked, seconds.
_LOOK_S: Final = 1.0
_MAX_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class LagoConnection:
    """One Lago organisation.

    Fields:
        organization: its name; `""` = the default one.
        key: returns the API key; `""` = there is no key.
        webhook_secrets: keys that its webhooks are signed with.
        clickhouse_dedup: whether its event store deduplicates.
        per_second: maximum posts of events per second of one process; 0 = no limit.
        concurrency: requests at the same time of one process.
        timeout_s: of one request.
    """

    organization: str
    url: str
    key: Callable[[], str] = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    clickhouse_dedup: bool
    per_second: float
    concurrency: int
    timeout_s: float

    @property
    def label(self) -> str:
        """The name in labels of metrics, logs and sentences."""
        return self.organization or DEFAULT_LABEL

    @property
    def is_default(self) -> bool:
        """Whether it is the organisation of `LAGO_API_URL`."""
        return self.organization == DEFAULT


class KeyFile:
    """The API key in a file that another program may replace. While the file cannot be read, the last key stays valid."""

    def __init__(self, path: Path, organization: str, clock: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._organization = organization
        self._clock = clock
        self._key = ""
        self._looked_at = float("-inf")
        self._failed = False

    def __call__(self) -> str:
        """Return the key; `""` if the file was never readable."""
        now = self._clock()
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._look()
        return self._key

    def _look(self) -> None:
        try:
            with self._path.open("rb") as file:
                key = file.read(_MAX_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            if not self._failed:
                _log.warning("lago_key_unreadable", organization=self._organization, error=type(error).__name__)
            self._failed = True
            return
        self._failed = False
        if key and self._key and key != self._key:
            _log.info("lago_key_replaced", organization=self._organization)
        self._key = key or self._key
