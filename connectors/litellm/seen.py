"""The visible configuration of a LiteLLM proxy, from its config.yaml or from the responses of a running proxy.

None means that a value cannot be seen, which is not the same as absent: a file has no version, and a running proxy does not
show `callback_settings`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

SUCCESS: Final = "success"
FAILURE: Final = "failure"
BOTH: Final = frozenset({SUCCESS, FAILURE})

#: Settings that list callbacks, and the calls that those callbacks get.
LISTS: Final = {
    "callbacks": BOTH,
    "success_callback": frozenset({SUCCESS}),
    "failure_callback": frozenset({FAILURE}),
}
#: Paths of the ingress to which LiteLLM's callbacks can send usage.
USAGE_PATH: Final = "/webhook/litellm/usage"
OPENMETER_PATH: Final = "/openmeter"
#: LiteLLM replaces this prefix and the name after it by an environment variable; the file does not show its value.
ENVIRON: Final = "os.environ/"


class CallbackKind(StrEnum):
    """The kind of a callback, which decides where it sends usage, and how it is configured."""

    GENERIC = "generic_api"
    LAGO = "lago"
    OPENMETER = "openmeter"
    WEBHOOK = "webhook"
    CUSTOM = "custom"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Callback:
    """One callback, by the name under which LiteLLM reports calls to it.

    Fields:
        hears: whether the callback is listed for `success`, `failure` or both.
        listed: the settings that list it, e.g. `success_callback`.
        settings: its entry in `callback_settings`.
        address: where it sends usage; `os.environ/...` if the environment has the address.
        headers: values by name in lower case; a value may be `os.environ/...`.
    """

    name: str
    kind: CallbackKind
    hears: frozenset[str] = BOTH
    listed: tuple[str, ...] = ("callbacks",)
    settings: Mapping[str, Any] | None = None
    address: str | None = None
    headers: Mapping[str, str] | None = None

    def reaches_us(self) -> bool | None:
        """Return whether it sends usage to an ingress of ours; None if its address cannot be seen."""
        if self.kind not in {CallbackKind.GENERIC, CallbackKind.OPENMETER}:
            return None if self.kind in {CallbackKind.CUSTOM, CallbackKind.LAGO} else False
        if self.kind is CallbackKind.OPENMETER and "callbacks" not in self.listed:
            return False  # LiteLLM makes no logger from it
        if self.address is None or is_unseen(self.address):
            return None
        path = urlsplit(self.address).path.rstrip("/")
        return path.endswith(USAGE_PATH) if self.kind is CallbackKind.GENERIC else path.endswith(OPENMETER_PATH)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A LiteLLM proxy.

    Fields:
        settings: `litellm_settings`.
        version: e.g. `1.109.1`.
        running: class names of the loggers of a running proxy.
        lago_webhook_url: whether the file has a `lago_webhook_url` anywhere.
        environment: the environment variables that the file sets.
        nameless: the settings whose lists contain values that are not names.
        misspelt: a sentence for each word of the file that is probably misspelt.
        surroundings: the environment in which the proxy is examined. LiteLLM may have the same.
    """

    callbacks: tuple[Callback, ...] = ()
    settings: Mapping[str, Any] | None = None
    version: str | None = None
    running: frozenset[str] | None = None
    lago_webhook_url: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    nameless: tuple[str, ...] = ()
    misspelt: tuple[str, ...] = ()
    surroundings: Mapping[str, str] = field(default_factory=dict, repr=False)

    def value_of(self, text: str) -> str | None:
        """Return a value of the file; None = it is in an environment variable that is not known here."""
        if not is_unseen(text):
            return text
        variable = text.removeprefix(ENVIRON)
        return self.environment.get(variable, self.surroundings.get(variable))

    def of(self, kind: CallbackKind) -> tuple[Callback, ...]:
        """Return the callbacks of one kind."""
        return tuple(callback for callback in self.callbacks if callback.kind is kind)


def is_unseen(value: object) -> bool:
    """Return whether the value is in the environment of the proxy and thus not visible."""
    return isinstance(value, str) and value.startswith(ENVIRON)


def kind_of(name: str, settings: Mapping[str, Any] | None) -> CallbackKind:
    """Return the kind, by the name in the list; for an own name, `callback_settings` decides."""
    if settings is not None and settings.get("callback_type") == CallbackKind.GENERIC:
        return CallbackKind.GENERIC
    if name in {CallbackKind.GENERIC, CallbackKind.LAGO, CallbackKind.OPENMETER, CallbackKind.WEBHOOK}:
        return CallbackKind(name)
    return CallbackKind.CUSTOM if "." in name else CallbackKind.OTHER
