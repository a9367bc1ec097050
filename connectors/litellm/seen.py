"""LiteLLM's proxy as far as it can be seen: from its config.yaml, or from what a running one tells.

A value that is None could not be seen, which is not the same as absent: a file shows no version, and a
running proxy shows no `callback_settings`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

SUCCESS: Final = "success"
FAILURE: Final = "failure"
BOTH: Final = frozenset({SUCCESS, FAILURE})

#: Paths of our own that LiteLLM's callbacks can post to.
USAGE_PATH: Final = "/webhook/litellm/usage"
OPENMETER_PATH: Final = "/openmeter"
#: LiteLLM puts the value of an environment variable where this stands; the file does not show it.
ENVIRON: Final = "os.environ/"


class CallbackKind(StrEnum):
    """What a callback is, which decides where it posts and what it can be told."""

    GENERIC = "generic_api"
    LAGO = "lago"
    OPENMETER = "openmeter"
    WEBHOOK = "webhook"
    CUSTOM = "custom"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Callback:
    """One name under which LiteLLM reports calls.

    Fields:
        hears: which of `success` and `failure` it is listed for.
        listed: the settings that list it, e.g. `success_callback`.
        settings: its entry in `callback_settings`.
        address: where it posts; `os.environ/...` where the environment says so.
        headers: names in lower case, to values; values may be `os.environ/...`.
    """

    name: str
    kind: CallbackKind
    hears: frozenset[str] = BOTH
    listed: tuple[str, ...] = ("callbacks",)
    settings: Mapping[str, Any] | None = None
    address: str | None = None
    headers: Mapping[str, str] | None = None

    def reaches_us(self) -> bool | None:
        """Whether it posts to an ingress of ours; None where its address cannot be seen."""
        if self.kind not in {CallbackKind.GENERIC, CallbackKind.OPENMETER}:
            return None if self.kind in {CallbackKind.CUSTOM, CallbackKind.LAGO} else False
        if self.kind is CallbackKind.OPENMETER and "callbacks" not in self.listed:
            return False  # LiteLLM makes no logger of it
        if self.address is None or is_unseen(self.address):
            return None
        path = urlsplit(self.address).path.rstrip("/")
        return path.endswith(USAGE_PATH) if self.kind is CallbackKind.GENERIC else path.endswith(OPENMETER_PATH)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy of LiteLLM.

    Fields:
        settings: `litellm_settings`.
        version: e.g. `1.109.1`.
        running: class names of the loggers that a running proxy has made of its callbacks.
        lago_webhook_url: whether `callback_vars` names one anywhere.
        environment: what the file itself puts into the environment of the proxy.
        nameless: the settings that list something else than names.
    """

    callbacks: tuple[Callback, ...] = ()
    settings: Mapping[str, Any] | None = None
    version: str | None = None
    running: frozenset[str] | None = None
    lago_webhook_url: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    nameless: tuple[str, ...] = ()

    def of(self, kind: CallbackKind) -> tuple[Callback, ...]:
        """The callbacks of a kind."""
        return tuple(callback for callback in self.callbacks if callback.kind is kind)


def is_unseen(value: object) -> bool:
    """Whether the value is in the proxy's environment, where it cannot be seen from here."""
    return isinstance(value, str) and value.startswith(ENVIRON)


def kind_of(name: str, settings: Mapping[str, Any] | None) -> CallbackKind:
    """By the name under which it is listed; a name of the operator's own is what `callback_settings` says."""
    if settings is not None and settings.get("callback_type") == CallbackKind.GENERIC:
        return CallbackKind.GENERIC
    if name in {CallbackKind.GENERIC, CallbackKind.LAGO, CallbackKind.OPENMETER, CallbackKind.WEBHOOK}:
        return CallbackKind(name)
    return CallbackKind.CUSTOM if "." in name else CallbackKind.OTHER
