"""Limits what the invalid elements of one body cost: time and memory to read them, and the number of their records."""

from hashlib import sha256
from typing import Final

from connectors.ingest.body_splitter import Element
from connectors.ingest.rejection_record import InvalidElement
from schemas.reasons import TOO_COMPLEX, TOO_DEEP, TOO_LARGE
from streams.core.metering.json_budget import Budget

#: How many elements without any field of a call get their own records; all further ones share one record. Otherwise
#: three bytes could make two records, in Kafka and in Postgres.
OWN_RECORDS: Final = 100
#: Reasons of large elements, which may contain a call.
_WORTH_A_RECORD: Final = (TOO_COMPLEX, TOO_DEEP, TOO_LARGE)


class OddElements:
    """The invalid elements of one body.

    Attributes:
        is_alone: the body is one element.
        budget: the limit of the tolerant reader.
        shared: how many elements share a record. `first` is the index of the first, `reason` its reason, `length` their bytes
            together, and `digest` the SHA-256 of them one after the other.
    """

    def __init__(self, *, is_alone: bool) -> None:
        self.is_alone = is_alone
        self.budget = Budget()
        self.shared = self.length = 0
        self.first = -1
        self.reason = ""
        self.digest = sha256()
        self._own = 0

    def shares(self, refused: InvalidElement, element: Element, index: int) -> bool:
        """Return whether the rejection of this element goes into the shared record; if so, it is added."""
        if refused.call is not None or self.is_alone or refused.reason in _WORTH_A_RECORD:
            return False
        self._own += 1
        if self._own <= OWN_RECORDS:
            return False
        if not self.shared:
            self.first, self.reason = index, refused.reason
        self.shared += 1
        view = memoryview(element)
        self.length += view.nbytes
        self.digest.update(view)
        return True
