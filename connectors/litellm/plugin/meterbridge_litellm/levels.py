"""Power levels: a client requests `eco`, `balanced` or `precision`, and the call gets the model and the parameters of
that level.

The operator's file (`METERBRIDGE_LEVELS`) defines the models. Meterbridge defines the levels and their preferred
providers (`GET /api/v1/power-levels`); it is asked at most once in `levels_seconds`, concurrently with the calls.
"""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from meterbridge_litellm.asking import UNANSWERED
from meterbridge_litellm.calls import header_of
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.refusal import Refused
from meterbridge_litellm.settings import PluginSettings

_PATH: Final = "/api/v1/power-levels"
_HEADER: Final = "x-power-level"
_FIELD: Final = "power_level"
_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_ANY: Final = "*"
#: If Meterbridge does not answer, its last response is used for this multiple of `levels_seconds`.
_STALE: Final = 10
_AGAIN_S: Final = 5.0


class Levels:
    """The levels of a proxy.

    Args:
        file: the operator's, from `read`.
        http: has the address and the key of the management API.
    """

    def __init__(
        self,
        file: Mapping[str, Mapping[str, Any]],
        settings: PluginSettings,
        counts: Counts,
        http: httpx.AsyncClient,
    ) -> None:
        self._file, self._settings, self._counts, self._http = file, settings, counts, http
        self._orders: dict[str, list[str]] = {}  # preferred providers by level, from Meterbridge
        self._known_at = self._next_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def apply(self, user: Any, data: dict[str, Any]) -> str:
        """Give the request the model and the parameters of its level; return the level, `""` = it has none.

        The level is the first of: the LiteLLM key's metadata, the header `x-power-level`, the request's metadata. If
        the level has no model for the requested model, nothing changes and the call has no level.

        Raises:
            Refused: 400 `unknown_power_level`.
        """
        self._refresh()
        if not (level := _asked(user, data)):
            return ""
        orders = self._orders if time.monotonic() - self._known_at < _STALE * self._settings.levels_seconds else {}
        if level not in self._file or (orders and level not in orders):
            raise Refused(400, "unknown_power_level", "there is no such power level")
        wanted = self._file[level]
        models = wanted.get("models")
        if models is not None:
            found = models.get(str(data.get("model")), models.get(_ANY))
            if isinstance(found, Mapping):
                order = [name for name in orders.get(level, ()) if name in found]
                found = found[order[0]] if order else next(iter(found.values()), None)
            if not found:
                return ""
            data["model"] = found
        data.update(wanted.get("params") or {})
        return level

    def _refresh(self) -> None:
        now = time.monotonic()
        if now >= self._next_at and (self._asking is None or self._asking.done()):
            self._next_at = now + min(_AGAIN_S, self._settings.levels_seconds)
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        try:
            answer = await self._http.get(_PATH)
            rows = answer.json()["power_levels"]
            orders = {str(row["power_level"]): [str(name) for name in row["provider_order"]] for row in rows}
        except (*UNANSWERED, KeyError, TypeError) as error:
            self._counts.warn("power_levels_unknown", why=type(error).__name__)
            return
        self._orders, self._known_at = orders, time.monotonic()
        self._next_at = self._known_at + self._settings.levels_seconds


def read(path: str) -> dict[str, dict[str, Any]]:
    """Read the operator's file: JSON of levels by name, each with `models` and `params`.

    Raises:
        ValueError: the file cannot be read, or has another form. The message contains nothing of the file.
    """
    try:
        levels = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        raise ValueError("METERBRIDGE_LEVELS names no file with JSON") from None
    if not isinstance(levels, dict) or not all(_NAME.fullmatch(name) and _is_level(it) for name, it in levels.items()):
        raise ValueError("METERBRIDGE_LEVELS names a file of another form") from None
    return levels


def _is_level(level: Any) -> bool:
    if not isinstance(level, dict) or not level.keys() <= {"models", "params"}:
        return False
    models, params = level.get("models", {}), level.get("params", {})
    if not isinstance(models, dict) or not isinstance(params, dict):
        return False
    each = [name for one in models.values() for name in (one.values() if isinstance(one, dict) else [one])]
    return all(isinstance(name, str) and name for name in each)


def _asked(user: Any, data: Mapping[str, Any]) -> str:
    """Return the level that a call asks for; `""` = none."""
    pinned = getattr(user, "metadata", None)
    given: list[Any] = [pinned.get(_FIELD) if isinstance(pinned, Mapping) else None, header_of(data, _HEADER)]
    for name in ("metadata", "litellm_metadata"):
        metadata = data.get(name)
        given.append(metadata.get(_FIELD) if isinstance(metadata, Mapping) else None)
    text = next((one for one in given if one), "")
    return text.strip().lower() if isinstance(text, str) else "?"
