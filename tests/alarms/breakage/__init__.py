"""The faults of a trial, by the file of the rules: each fault starts, and is repaired at the end of its block."""

from typing import Final

from tests.alarms.breakage import canary, delivery, held, ingest, metering, processes
from tests.alarms.breakage import credits as prepaid
from tests.alarms.breakage.scene import Fault

_ROOMS: Final = (canary, prepaid, delivery, held, ingest, metering, processes)
#: These stop a ledger or move its clock, and what the last one breaks stays. So they come last, in this order.
_LAST: Final = (
    "MeterbridgeSpooling",
    "MeterbridgeSpoolFillsUp",
    "MeterbridgeClockWrong",
    "MeterbridgePartitionHalted",
    "MeterbridgeLedgerImbalance",
    "MeterbridgeUnreadableRecords",
    "MeterbridgeAuditLogChanged",
)
_ALL: Final = {name: fault for room in _ROOMS for name, fault in room.FAULTS.items()}
#: The fault of each alarm, in the order in which they are tried.
FAULTS: Final[dict[str, Fault]] = {
    **{name: fault for name, fault in _ALL.items() if name not in _LAST},
    **{name: _ALL[name] for name in _LAST},
}
#: The alarms whose fault cannot be made in a trial, and why.
NOT_BROKEN: Final[dict[str, str]] = {}
#: What else rings with an alarm's fault, and why its rule does not leave it out.
CONSEQUENCES: Final[dict[str, dict[str, str]]] = {
    "MeterbridgeProjectorHalfwayToDeletion": {
        "MeterbridgeProjectorBehind": "rings from ten minutes of lag on, and ends when this page rings after a week"
    },
    "MeterbridgeLateCallsWait": {
        "MeterbridgeUsageRejected": "a late call is refused at first, and where there is no Postgres nothing else shows it"
    },
}
