"""Recorded records, field by field, decoded by the version that runs this program. It imports only `schemas` of the product.

`python -P decoded.py FOLDER` prints it as JSON lines, one a record, in the order of the file.
"""

import base64
import gzip
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from schemas.customers import CustomerRecord, OrgRecord
from schemas.decoding import decoder
from schemas.ledger import JOB_PREFIX, POSITION_KEY, WINDOW_PREFIX, Job, Position, Window
from schemas.records import (
    AuditRecord,
    DeliveryAttempt,
    EnrichedUsage,
    LagoEvent,
    Manifest,
    Receipt,
    Rejection,
    WriteOff,
)
from schemas.wire import RawRecord

#: What the value of a topic is.
TYPES: dict[str, Any] = {
    "litellm.usage.raw": RawRecord,
    "litellm.usage.rejected": Rejection,
    "litellm.usage.enriched": EnrichedUsage,
    "billing.customers": CustomerRecord,
    "billing.orgs": OrgRecord,
    "billing.lago.events": LagoEvent,
    "billing.lago.retry": LagoEvent,
    "billing.lago.dlq": LagoEvent,
    "billing.receipts": Receipt,
    "billing.audit": AuditRecord,
    "billing.deliveries": DeliveryAttempt,
}
_JSON = {topic: decoder(of) for topic, of in TYPES.items()}
_PACKED = {of: decoder(of, packed=True) for of in (Position, Window, Job)}
_EMPTY: tuple[Any, ...] = (None, msgspec.UNSET, "", (), {}, [])
_manifest = decoder(Manifest)
#: A record of the raw topic that is an order of an operator's, by its header `control`.
_order = decoder(WriteOff)


def decoded(topic: str, key: bytes | None, value: bytes | None, headers: dict[str, bytes | None]) -> dict[str, Any]:
    """Return a record's key, value and headers as plain values.

    Raises:
        schemas.decoding.Unreadable: this version does not read it.
    """
    said: dict[str, Any] = {name: (text or b"").decode() for name, text in headers.items()}
    if "manifest" in headers:
        said["manifest"] = plain(_manifest(headers["manifest"]))
    if topic == "meter.changelog":
        return {"key": (key or b"").hex(), "value": _of_ledger(key or b"", value)}
    read = _order if "control" in headers else _JSON[topic]
    shown = None if value is None else plain(read(value))
    return {"key": None if key is None else key.decode(), "value": shown, "headers": said}


def _of_ledger(key: bytes, value: bytes | None) -> Any:
    if value is None:
        return None
    if key == POSITION_KEY:
        return plain(_PACKED[Position](value))
    kinds = {WINDOW_PREFIX: Window, JOB_PREFIX: Job}
    return plain(_PACKED[kinds[key[:1]]](value)) if key[:1] in kinds else value.hex()


def plain(value: Any) -> Any:
    """Structs by the names of their fields, without those that are empty; money as its own text."""
    if isinstance(value, msgspec.Struct):
        fields = ((one.name, getattr(value, one.name)) for one in msgspec.structs.fields(value))
        return {name: plain(its) for name, its in fields if not any(its is none or its == none for none in _EMPTY)}
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): plain(its) for name, its in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(its) for its in value]
    return value


def _lines(folder: Path) -> None:
    with gzip.open(folder / "topics.jsonl.gz") as lines:
        for line in lines:
            record = json.loads(line)
            key, value = (None if text is None else base64.b64decode(text) for text in (record["key"], record["value"]))
            headers = {name: None if text is None else base64.b64decode(text) for name, text in record["headers"]}
            print(json.dumps(decoded(record["topic"], key, value, headers), separators=(",", ":")))


if __name__ == "__main__":
    _lines(Path(sys.argv[1]))
