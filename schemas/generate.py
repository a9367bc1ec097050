"""Writes the JSON Schemas and the AsyncAPI document from the types: `python -m schemas.generate` (dev extra).

The files are in `schemas/json`; a test compares them with the types.
"""

from inspect import cleandoc
from json import dumps
from pathlib import Path
from re import compile as re_compile
from typing import Any

import msgspec
import yaml

from schemas.asyncapi import document
from schemas.context import CallContext
from schemas.customers import CustomerRecord, OrgRecord
from schemas.rates import RateCard
from schemas.records import AuditRecord, DeliveryAttempt, EnrichedUsage, LagoEvent, Manifest, Receipt, Rejection
from schemas.webhooks import BalanceMessage, DeadLetterMessage, HeldUsageMessage, PartitionMessage, TestWebhook
from schemas.wire import Call, RawRecord

FOLDER = Path(__file__).parent / "json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

#: This product writes these: an amount is exact text.
OUTBOUND: tuple[type[msgspec.Struct], ...] = (
    Rejection,
    CustomerRecord,
    OrgRecord,
    EnrichedUsage,
    LagoEvent,
    Manifest,
    Receipt,
    AuditRecord,
    DeliveryAttempt,
    CallContext,
    RateCard,
    HeldUsageMessage,
    DeadLetterMessage,
    BalanceMessage,
    PartitionMessage,
    TestWebhook,
)
#: Others wrote these, or they are stored as others wrote them: an amount may be a number or text.
INBOUND: tuple[type[msgspec.Struct], ...] = (Call, RawRecord)

_WRITTEN = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"}
_ACCEPTED = {"type": ["number", "string"]}
_FIELD = re_compile(r"^    (\w+(?:, \w+)*): (.*)$")


def files() -> dict[str, str]:
    """Name and text of every file in `schemas/json`."""
    schemas = dict.fromkeys(OUTBOUND, _WRITTEN) | dict.fromkeys(INBOUND, _ACCEPTED)
    texts = {
        f"{of.__name__}.schema.json": dumps(schema_of(of, amount), indent=2, ensure_ascii=False) + "\n"
        for of, amount in schemas.items()
    }
    texts["asyncapi.yaml"] = yaml.safe_dump(document(), sort_keys=False, width=110, allow_unicode=True)
    return texts


def schema_of(of: type[msgspec.Struct], amount: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type and of the types in it; `amount` is the schema of a Decimal."""
    (root,), parts = msgspec.json.schema_components([of])
    for part in parts.values():
        part["description"], meanings = _described(part["description"])
        for name, meaning in meanings.items():
            part["properties"][name]["description"] = meaning
    schema: dict[str, Any] = _replaced({"$schema": DIALECT, **root, "$defs": parts}, amount)
    return schema


def _described(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the description of a type, and of each field under `Fields:`, from its docstring."""
    about, _, fields = cleandoc(docstring).partition("\n\nFields:\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in fields.splitlines():
        if match := _FIELD.match(line):
            names, text = match[1].split(", "), match[2]
        else:
            text = f" {line.strip()}"
        for name in names:
            meanings[name] = meanings.get(name, "") + text
    return " ".join(about.split()), meanings


def _replaced(node: Any, amount: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_replaced(item, amount) for item in node]
    if not isinstance(node, dict):
        return node
    replaced = {name: _replaced(value, amount) for name, value in node.items()}
    return replaced | amount if replaced.get("format") == "decimal" else replaced


def write() -> None:
    """Write every file that has changed, and remove files that are no longer made."""
    texts = files()
    FOLDER.mkdir(exist_ok=True)
    for stale in {path.name for path in FOLDER.iterdir()} - texts.keys():
        (FOLDER / stale).unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
