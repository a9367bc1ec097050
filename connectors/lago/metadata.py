"""The metadata of a customer. Lago's update of it is not idempotent (docs/lago-behaviour.md, 5.1). Pure functions."""

from collections.abc import Iterable, Mapping

from connectors.lago.errors import LagoRejected
from connectors.lago.requests import Note
from connectors.lago.responses import Metadata

MAX_ENTRIES = 5
MAX_KEY = 20
MAX_VALUE = 100


def notes(known: Iterable[Metadata], values: Mapping[str, str]) -> tuple[Note, ...]:
    """Return the list that adds or changes `values` and keeps all other entries.

    An existing entry must be sent with its id; otherwise Lago refuses its key as a duplicate. Lago deletes entries that
    are not sent.

    Raises:
        LagoRejected: `bad_metadata`: a key without 1 to 20 characters, a value without 1 to 100, or more than 5 entries.
    """
    entries = {entry.key: Note(entry.key, entry.value, entry.lago_id, entry.display_in_invoice) for entry in known}
    for key, value in values.items():
        _check(key, value)
        same = entries.get(key)
        entries[key] = Note(key, value) if same is None else Note(key, value, same.id, same.display_in_invoice)
    if len(entries) > MAX_ENTRIES:
        raise LagoRejected("bad_metadata", f"{len(entries)} entries: Lago keeps {MAX_ENTRIES} of a customer")
    return tuple(entries.values())


def _check(key: str, value: str) -> None:
    if not key.strip() or len(key) > MAX_KEY:
        raise LagoRejected("bad_metadata", f"a key must have 1 to {MAX_KEY} characters: {key[: MAX_KEY + 1]!r}")
    if not value.strip() or len(value) > MAX_VALUE:
        raise LagoRejected("bad_metadata", f"the value of {key} must have 1 to {MAX_VALUE} characters")
