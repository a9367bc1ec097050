"""The states of an event in its receipts. They are in a separate module, so that an ingress does not import numpy."""

from schemas.records import Receipt

#: Prefix of the reason of `failed` if Lago accepted an event that no invoice counts.
UNBILLABLE = "unbillable_"
PENDING, PROCESSING, COMPLETED, FAILED = STATUSES = ("pending", "processing", "completed", "failed")


def takes_back(receipt: Receipt) -> bool:
    """Return whether a receipt says that Lago does not bill an event that it accepted. Such a receipt may even follow
    `completed`.
    """
    return receipt.status == FAILED and receipt.reason.startswith(UNBILLABLE)
