"""Checks the visible part of a LiteLLM configuration; pure."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from connectors.config.connections import all_revealed
from connectors.config.settings import Settings
from connectors.doctor.catalogue import Finding
from connectors.doctor.version_rules import judge_version
from connectors.ingest.auth import WebhookAuth
from connectors.litellm.recommended import AUTHORIZATION, NEEDED_BY_SPEND_LOGS, SAFE_VERSION
from connectors.litellm.seen import ENVIRON, FAILURE, SUCCESS, Callback, CallbackKind, Proxy, is_unseen

SHORTEST_TIMEOUT_S: Final = 10
LONGEST_TIMEOUT_S: Final = 120
_FORMATS: Final = ("json_array", "ndjson", "single")
_LOGGERS: Final = {
    CallbackKind.GENERIC: "GenericAPILogger",
    CallbackKind.LAGO: "LagoLogger",
    CallbackKind.OPENMETER: "OpenMeterLogger",
}
_READ_BEFORE_THE_FILE: Final = ("DEFAULT_BATCH_SIZE", "DEFAULT_FLUSH_INTERVAL_SECONDS")

Findings = Iterator[Finding]


def judge_litellm(proxy: Proxy, own: Settings) -> list[Finding]:
    """Return all findings about the proxy for our own settings, in the order of the rules below."""
    findings = [finding for rule in _RULES for finding in rule(proxy, own)]
    return list(dict.fromkeys(findings))


def _ways_to_us(proxy: Proxy, own: Settings) -> Findings:
    """Check that exactly one callback reports to the ingress."""
    lago = [_lago_is_at(callback, own) for callback in proxy.of(CallbackKind.LAGO)]
    sure, maybe = _reaching(proxy, own)
    if len(sure) > 1:
        yield Finding("two_callbacks", f"{', '.join(sure[:-1])} and {sure[-1]} report the same calls to this ingress.")
    if not sure and not maybe and "unseen" not in lago:
        yield Finding("nothing_reaches_us", "No callback in LiteLLM's configuration posts to this ingress.")
    for callback in maybe:
        if callback.kind is not CallbackKind.CUSTOM or not sure:
            yield Finding(
                "callback_unseen",
                f"The address of {callback.name} is not visible, so it may or may not post to this ingress.",
            )


def _built_in(proxy: Proxy, own: Settings) -> Findings:
    """Report LiteLLM's own callbacks for Lago and OpenMeter: they leave out calls, and together with another callback
    they double calls.
    """
    sure, maybe = _reaching(proxy, own)
    beside = [name for name in sure if name != CallbackKind.LAGO] + [
        callback.name for callback in maybe if callback.kind is CallbackKind.GENERIC
    ]
    for callback in proxy.of(CallbackKind.LAGO):
        place = _lago_is_at(callback, own)
        if place != "here" and beside:
            where = (
                "directly to Lago" if place == "lago" else "to an address that is not visible (Lago or this ingress)"
            )
            yield Finding("lago_beside_us", f"{callback.name} posts {where}, in addition to {', '.join(beside)}.")
        elif place == "unseen":
            yield Finding(
                "callback_unseen",
                f"{callback.name} posts to LAGO_API_BASE of LiteLLM's environment, which is not visible.",
            )
        if place != "lago":
            yield Finding(
                "lago_callback",
                f"{callback.name} posts each call only once, without a retry, and leaves out some calls.",
            )
    for callback in proxy.of(CallbackKind.OPENMETER):
        if callback.reaches_us():
            yield Finding(
                "openmeter_callback",
                f"{callback.name} posts each call only once, without a retry, and leaves out some calls.",
            )


def _what_sends_nothing(proxy: Proxy, _own: Settings) -> Findings:
    for callback in proxy.of(CallbackKind.WEBHOOK):
        yield Finding(
            "webhook_callback", f'{" and ".join(callback.listed)}: LiteLLM sends nothing for the callback "webhook".'
        )
    for setting in proxy.nameless:
        yield Finding("callback_no_name", f"{setting} contains an entry that is not the name of a callback.")
    if proxy.lago_webhook_url:
        yield Finding("lago_webhook_url", "callback_vars.lago_webhook_url is set, but LiteLLM does not read it.")
    for callback in proxy.of(CallbackKind.OPENMETER):
        if "callbacks" not in callback.listed:
            yield Finding(
                "openmeter_in_success_callback", f"LiteLLM sends nothing for openmeter in {callback.listed[0]}."
            )


def _what_was_not_made(proxy: Proxy, _own: Settings) -> Findings:
    """Check the loggers that a running proxy shows. A missing logger was refused when the proxy started."""
    for callback in proxy.callbacks:
        logger = _LOGGERS.get(callback.kind)
        if proxy.running is not None and logger and SUCCESS in callback.hears and logger not in proxy.running:
            yield Finding("callback_not_loaded", f"The running proxy has no logger for {callback.name}.")


def _entries(proxy: Proxy, _own: Settings) -> Findings:
    """Check the `callback_settings` of each callback that may post to the ingress. A running proxy does not show them."""
    for callback in proxy.of(CallbackKind.GENERIC):
        if proxy.settings is None or callback.reaches_us() is False:
            continue
        entry, name = callback.settings or {}, callback.name
        if callback.settings is not None and (entry.get("endpoint") is None or entry.get("headers") is None):
            yield Finding("endpoint_or_headers_missing", f"callback_settings.{name} lacks endpoint or headers.")
        if _number(entry.get("max_retries"), 0) < 1:
            yield Finding("max_retries_0", f"callback_settings.{name}.max_retries is 0 or missing.")
        yield from _timeout(name, entry.get("timeout"))
        yield from _format(name, entry.get("log_format"))


def _credentials(proxy: Proxy, own: Settings) -> Findings:
    """Check that the ingress accepts the Authorization header, if the header can be seen."""
    tokens = all_revealed(own.webhook_token)
    for callback in proxy.of(CallbackKind.GENERIC):
        # Without an entry the headers are in GENERIC_LOGGER_HEADERS of the proxy's environment.
        hidden = callback.headers is None and (callback.settings is None or proxy.settings is None)
        if own.allow_unauthenticated or hidden or callback.reaches_us() is False:
            continue
        sent = (callback.headers or {}).get("authorization")
        if not sent:
            yield Finding("auth_missing", f"{callback.name} sends no Authorization header.")
        else:
            yield from _token(proxy, callback.name, sent, WebhookAuth(tokens=tokens))


def _token(proxy: Proxy, name: str, sent: str, auth: WebhookAuth) -> Findings:
    """Check the value of an Authorization header, which may be in the environment."""
    value, where = proxy.value_of(sent), ""
    if is_unseen(sent):
        where = f", which is {sent.removeprefix(ENVIRON)} of the environment,"
    if value is None and sent.removeprefix(ENVIRON) != AUTHORIZATION:
        yield Finding(
            "header_unseen",
            f"The Authorization header of {name}{where} is not visible here, and is not {AUTHORIZATION}.",
        )
    elif value is not None and auth.has_other_scheme(value):
        yield Finding(
            "bearer_missing", f"The Authorization header of {name}{where} has a token without Bearer before it."
        )
    elif value is not None and not auth.is_open and auth.token_sender(value) is None:
        yield Finding(
            "token_unknown", f"The Authorization header of {name}{where} contains none of the tokens in WEBHOOK_TOKEN."
        )


def _words(proxy: Proxy, _own: Settings) -> Findings:
    for sentence in proxy.misspelt:
        yield Finding("word_misspelt", sentence)


def _what_is_heard(proxy: Proxy, _own: Settings) -> Findings:
    for callback in proxy.callbacks:
        if callback.kind is not CallbackKind.GENERIC or callback.reaches_us() is False:
            continue
        types = (callback.settings or {}).get("event_types")
        heard = set(callback.hears)
        if isinstance(types, list):
            heard &= {str(kind).removeprefix("llm_api_") for kind in types}
        if FAILURE not in heard:
            yield Finding("failures_unheard", f"{callback.name} does not receive failed calls.")
        if SUCCESS not in heard:
            yield Finding("successes_unheard", f"{callback.name} does not receive successful calls.")


def _switches(proxy: Proxy, _own: Settings) -> Findings:
    """Check `litellm_settings`."""
    settings = proxy.settings
    if settings is None:
        yield Finding("settings_unseen", "A running proxy does not show litellm_settings and callback_settings.")
        return
    if settings.get("global_disable_no_log_param") is not True:
        yield Finding("no_log_open", "litellm_settings.global_disable_no_log_param is not true.")
    if settings.get("generic_api_use_v1") is True:
        yield Finding("generic_api_v1", "litellm_settings.generic_api_use_v1 is true.")
    for variable in _READ_BEFORE_THE_FILE:
        if variable in proxy.environment:
            yield Finding(
                "flush_too_late", f"environment_variables.{variable} has no effect: LiteLLM reads it before this file."
            )


def _records(proxy: Proxy, _own: Settings) -> Findings:
    """Check which members a record has besides usage, and the member that LiteLLM's own spend writer needs."""
    settings = proxy.settings
    if settings is None:
        return
    excluded = settings.get("standard_logging_payload_excluded_fields")
    left_out = set(excluded) if isinstance(excluded, list) else set()
    if NEEDED_BY_SPEND_LOGS in left_out:
        yield Finding("spend_log_stopped", f"standard_logging_payload_excluded_fields contains {NEEDED_BY_SPEND_LOGS}.")
    if all(callback.reaches_us() is False for callback in proxy.of(CallbackKind.GENERIC)):
        return
    if not {"messages", "response"} <= left_out and settings.get("turn_off_message_logging") is not True:
        yield Finding("prompts_leave", "standard_logging_payload_excluded_fields lacks messages or response.")


def _version(proxy: Proxy, _own: Settings) -> Findings:
    """Report versions that lose calls because they have no lock. Other findings about a version come from our tests
    with it.
    """
    yield from judge_version(proxy.version)
    numbers = re.match(r"(\d+)\.(\d+)", proxy.version or "")
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < SAFE_VERSION:
        yield Finding("old_version", f"LiteLLM {proxy.version} is older than {'.'.join(map(str, SAFE_VERSION))}.")


_RULES: Final[tuple[Callable[[Proxy, Settings], Findings], ...]] = (
    _ways_to_us,
    _built_in,
    _what_sends_nothing,
    _words,
    _what_was_not_made,
    _entries,
    _credentials,
    _what_is_heard,
    _switches,
    _records,
    _version,
)


def _timeout(name: str, value: object) -> Findings:
    seconds = _number(value, None)
    if seconds is None or seconds > LONGEST_TIMEOUT_S:
        yield Finding("timeout_long", f"callback_settings.{name}.timeout is missing or above {LONGEST_TIMEOUT_S} s.")
    elif seconds < SHORTEST_TIMEOUT_S:
        yield Finding("timeout_short", f"callback_settings.{name}.timeout is below {SHORTEST_TIMEOUT_S} s.")


def _format(name: str, value: object) -> Findings:
    if value is not None and value not in _FORMATS:
        yield Finding("log_format_unknown", f"callback_settings.{name}.log_format is not one of {', '.join(_FORMATS)}.")
    elif value == "single":
        yield Finding("log_format_single", f"callback_settings.{name}.log_format is single.")


def _reaching(proxy: Proxy, own: Settings) -> tuple[list[str], list[Callback]]:
    """Return the names of the callbacks that post to this ingress, and the callbacks that may do so."""
    sure = [callback.name for callback in proxy.callbacks if callback.reaches_us()]
    sure += [callback.name for callback in proxy.of(CallbackKind.LAGO) if _lago_is_at(callback, own) == "here"]
    maybe = [
        callback
        for callback in proxy.callbacks
        if callback.kind is not CallbackKind.LAGO and callback.reaches_us() is None
    ]
    return sure, maybe


def _lago_is_at(callback: Callback, own: Settings) -> str:
    """Return where LiteLLM's `lago` callback posts: `here`, `lago`, or `unseen`. Any address other than Lago's counts as ours."""
    if callback.address is None or is_unseen(callback.address):
        return "unseen"
    place, lagos = urlsplit(callback.address), urlsplit(own.lago_api_url)
    same = (place.hostname, place.port) == (lagos.hostname, lagos.port)
    is_lago = same or (place.hostname or "").endswith("getlago.com")
    return "lago" if is_lago else "here"


def _number(value: Any, otherwise: float | None) -> Any:
    """Return the number, also from a text, or `otherwise`. A value from LiteLLM's environment is not visible and counts as valid."""
    if is_unseen(value):
        return float(SHORTEST_TIMEOUT_S)
    try:
        return float(value)
    except (TypeError, ValueError):
        return otherwise
