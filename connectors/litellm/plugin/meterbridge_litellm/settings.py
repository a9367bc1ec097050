"""The settings of the plugin, from environment variables `METERBRIDGE_<NAME>`. docs/litellm-plugin.md describes each."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from typing import Any, Final

#: When the client gets its response: after the record is on disk, after the kernel has the record (`kill -9` loses
#: nothing), or at once.
FSYNC, WRITE, AT_ONCE = "fsync", "write", "none"
SEGMENT_BYTES: Final = 1 << 20
OFF, FREE = "off", "free"
_DAY_S: Final = 86_400
#: The maximum time for which a revoked key is still used, seconds.
_KEY_S: Final = 60
_CHOICES: Final = {
    "answer_after": (FSYNC, WRITE, AT_ONCE),
    "authorize": ("off", "on"),
    "account": ("user", "org"),
    "fail": ("closed", "open"),
    "own_keys": (OFF, "billed", FREE),
}


@dataclass(frozen=True, kw_only=True)
class PluginSettings:
    """Times are in seconds, amounts in US dollars, sizes in bytes."""

    url: str
    ring_path: str
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ring_max_bytes: int = 256 << 20
    aside_max_bytes: int = 64 << 20
    answer_after: str = WRITE
    answer_wait: float = 0.25
    flush_seconds: float = 0.5
    stop_seconds: float = 5.0
    post_timeout: float = 30.0
    keep: str = ""
    api_url: str = ""
    api_key: str = field(default="", repr=False)
    api_timeout: float = 0.5
    authorize: str = "off"
    account: str = "user"
    estimate_usd: Decimal = Decimal("0.05")
    reserve_seconds: int = 600
    fail: str = "closed"
    fail_open_usd: Decimal = Decimal(10)
    fail_open_account_usd: Decimal = Decimal(1)
    levels: str = ""
    levels_seconds: int = 60
    own_keys: str = OFF
    own_key_seconds: int = 5

    @property
    def asks(self) -> bool:
        """Whether the plugin asks the management API about calls."""
        return self.authorize == "on" or self.own_keys != OFF or bool(self.levels)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "PluginSettings":
        """Read the settings from an environment.

        Raises:
            ValueError: a variable is missing or wrong, so the proxy does not start. The message never contains its value.
        """
        given: dict[str, Any] = {}
        for one in fields(cls):
            if text := environ.get(_variable(one.name), "").strip():
                try:
                    kind: Any = str if one.name in _TEXTS else type(one.default)
                    given[one.name] = kind(text)
                except (ValueError, InvalidOperation):
                    raise ValueError(
                        f"{_variable(one.name)} is not a number; write digits, such as {one.default}"
                    ) from None
        for name in _TEXTS:
            if name not in given:
                raise ValueError(f"{_variable(name)} is not set; set it as docs/litellm-plugin.md describes")
        made = cls(**given)
        made._check()
        return made

    def _check(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{_variable(name)} must be one of {', '.join(allowed)}")
        if not self.secret and not self.token:
            raise ValueError(f"{_variable('secret')} and {_variable('token')} are not set; set one of them")
        if self.ring_max_bytes < 4 * SEGMENT_BYTES:
            raise ValueError(f"{_variable('ring_max_bytes')} must be at least {4 * SEGMENT_BYTES} bytes")
        if not 1 <= self.reserve_seconds <= _DAY_S:
            raise ValueError(f"{_variable('reserve_seconds')} must be between 1 and {_DAY_S} seconds")
        if not 1 <= self.levels_seconds <= _DAY_S:
            raise ValueError(f"{_variable('levels_seconds')} must be between 1 and {_DAY_S} seconds")
        if not 0 <= self.own_key_seconds <= _KEY_S:
            raise ValueError(f"{_variable('own_key_seconds')} must be between 0 and {_KEY_S} seconds")
        if self.asks and not self.api_key:
            raise ValueError(f"{_variable('api_key')} is not set; set it to a key of the management API")


_TEXTS: Final = ("url", "ring_path")


def _variable(name: str) -> str:
    return f"METERBRIDGE_{name.upper()}"
