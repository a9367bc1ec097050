"""The settings of the plugin, from environment variables `METERBRIDGE_<NAME>`. docs/litellm-plugin.md describes each."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

#: When the client gets its response: after the record is on disk, after the kernel has the record (`kill -9` loses
#: nothing), or at once.
FSYNC, WRITE, AT_ONCE = "fsync", "write", "none"
SEGMENT_BYTES: Final = 1 << 20
OFF, FREE = "off", "free"
RING_PATH: Final = "METERBRIDGE_RING_PATH"
#: The ingress's path for usage, which is added to `url`.
PATH: Final = "/webhook/litellm/usage"
_HOUR_S, _DAY_S, _MOST_BYTES, _MOST_USD = 3600, 86_400, 1 << 50, 10**9
#: The maximum time for which a revoked key is still used, seconds.
_KEY_S: Final = 60
_CHOICES: Final = {
    "answer_after": (FSYNC, WRITE, AT_ONCE),
    "authorize": ("off", "on"),
    "account": ("user", "org"),
    "fail": ("closed", "open"),
    "own_keys": (OFF, "billed", FREE),
}
#: The least and the greatest value of each number, and its unit. NaN is in no range.
_RANGES: Final = {
    "ring_max_bytes": (4 * SEGMENT_BYTES, _MOST_BYTES, "bytes"),
    "aside_max_bytes": (0, _MOST_BYTES, "bytes"),
    "answer_wait": (0, _HOUR_S, "seconds"),
    "flush_seconds": (0, _HOUR_S, "seconds"),
    "stop_seconds": (0, _HOUR_S, "seconds"),
    "post_timeout": (0.1, _HOUR_S, "seconds"),
    "api_timeout": (0.01, _HOUR_S, "seconds"),
    "estimate_usd": (0, _MOST_USD, "dollars"),
    "fail_open_usd": (0, _MOST_USD, "dollars"),
    "fail_open_account_usd": (0, _MOST_USD, "dollars"),
    "reserve_seconds": (1, _DAY_S, "seconds"),
    "levels_seconds": (1, _DAY_S, "seconds"),
    "own_key_seconds": (0, _KEY_S, "seconds"),
}
_ADDRESSES: Final = ("url", "api_url")
_BEARERS: Final = ("token", "api_key")
_KEPT: Final = ("tags", "metadata")


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
        for name, (least, most, unit) in _RANGES.items():
            if not _within(getattr(self, name), least, most):
                raise ValueError(f"{_variable(name)} must be between {least} and {most} {unit}")
        for name in _ADDRESSES:
            if (given := getattr(self, name)) and not _is_address(given):
                raise ValueError(f"{_variable(name)} must be an address such as http://ingress:8080, without {PATH}")
        for name in _BEARERS:
            given = getattr(self, name)
            if not given.isascii() or not given.isprintable() or given.lower().startswith("bearer "):
                raise ValueError(f"{_variable(name)} must be one line of ASCII, without Bearer before it")
        if self.keep and not {part.strip() for part in self.keep.split(",")} <= {*_KEPT, ""}:
            raise ValueError(f"{_variable('keep')} must be {' or '.join(_KEPT)}, or both with a comma")
        if self.asks and not self.api_key:
            raise ValueError(f"{_variable('api_key')} is not set; set it to a key of the management API")


_TEXTS: Final = ("url", "ring_path")


def _variable(name: str) -> str:
    return f"METERBRIDGE_{name.upper()}"


def _within(number: Any, least: float, most: float) -> bool:
    try:
        return bool(least <= number <= most)
    except InvalidOperation:  # Decimal's NaN
        return False


def _is_address(text: str) -> bool:
    """Return whether a text is `http://host` or `https://host`, with a port and a prefix of a proxy if need be."""
    try:
        place = urlsplit(text)
        _ = place.port  # raises ValueError: it is no number
    except ValueError:
        return False
    named = place.scheme in {"http", "https"} and place.hostname and not place.query and not place.fragment
    return bool(named and text.isprintable() and " " not in text and not place.path.rstrip("/").endswith(PATH))
