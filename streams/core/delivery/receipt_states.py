"""The states of an event as its receipts name them. Apart from what counts them, so that an ingress need not load numpy."""

from schemas.records import Receipt

#: The prefix of the reasons of `failed` where Lago accepted an event that no invoice will count.
UNBILLABLE = "unbillable_"
PENDING, PROCESSING, COMPLETED, FAILED = STATUSES = ("pending", "processing", "completed", "failed")


def takes_back(receipt: Receipt) -> bool:
    """Whether a receipt says that Lago will not bill an event that it accepted: it may follow even `completed`."""
    return receipt.status == FAILED and receipt.reason.startswith(UNBILLABLE)
