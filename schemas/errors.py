"""The error tree: the class of an error *is* the decision about the record.

MeterbridgeError
├── Rejected            permanently wrong: goes to a dead-letter topic with its reason
├── Unavailable         may pass later: goes to retry, or the work is held
├── ConfigurationError  named setting is missing or malformed: the process does not start
├── TopicProblem        a topic is missing, truncated, recreated or regrown: the partition task stops
└── LedgerBroken        the ledger does not add up: the partition task stops and alarms, never the money

`reason` is a stable code (lower-case words and underscores): it is a metric label and a
column in `docs/errors.md`. `detail` is for people and never holds a payload, a key or a prompt.
"""


class MeterbridgeError(Exception):
    """Base class of all errors that Meterbridge raises on purpose."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Rejected(MeterbridgeError):
    """The record can never be billed as it is; repeating it changes nothing."""


class Unavailable(MeterbridgeError):
    """Another system does not answer now; the same work may succeed later."""


class ConfigurationError(MeterbridgeError):
    """A setting is missing or malformed; `reason` is the setting's name."""


class TopicProblem(MeterbridgeError):
    """A topic is not what the ledger was built on."""


class LedgerBroken(MeterbridgeError):
    """Conservation does not hold, or the changelog contradicts itself."""
