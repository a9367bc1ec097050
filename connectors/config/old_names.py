"""Refuses settings that are set under an old name, because such a setting would be ignored."""

from collections.abc import Mapping
from typing import Final

from connectors.config.secret_files import ENDING
from schemas.errors import ConfigurationError

#: Old names of settings, and their present names.
RENAMED: Final[Mapping[str, str]] = {
    "ALLOW_UNSIGNED": "ALLOW_UNAUTHENTICATED",
    "DEDUPE_HORIZON_HOURS": "DEDUPE_RETENTION_HOURS",
    "LATE_POLICY": "OUT_OF_PERIOD_POLICY",
    "MAPPING_LEAD_SECONDS": "MAPPING_DELAY_SECONDS",
}


def check_renamed(environ: Mapping[str, str], renamed: Mapping[str, str] = RENAMED) -> None:
    """Refuse an environment that sets a setting, or names its file, under an old name. An empty variable counts as unset.

    Args:
        renamed: new names by old ones.

    Raises:
        ConfigurationError: `reason` is the old name, several joined by commas; the sentence never holds a value.
    """
    names = {old + ending: new + ending for old, new in renamed.items() for ending in ("", ENDING)}
    still_set = {old: new for old, new in names.items() if environ.get(old, "").strip()}
    if still_set:
        sentence = "; ".join(f"{old} is now called {new}" for old, new in still_set.items())
        raise ConfigurationError(", ".join(still_set), sentence)
