"""Whose an event at Lago or in a topic is: the one rule for all that must know it. Pure.

The id of a part begins with its deployment. The id of a single call (`WINDOW_SECONDS=0`, and usage that another service measured) is the
identity of the call, which names no deployment: it is made of the call alone. An event of a single call says in its property `deployment` whose
it is; one that an older release sealed, or that another service measured, does not.
"""

import re
from functools import lru_cache
from typing import Final

from schemas.records import LagoEvent

#: The property of an event of a single call.
DEPLOYMENT: Final = "deployment"
_SINGLE: Final = re.compile(r"[0-9a-f]{32}(-again)*")


#: Records of a topic name deployments, and each pattern that is kept takes some KiB.
@lru_cache(maxsize=16)
def _part_of(deployment: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(deployment)}-[A-Za-z0-9_-]{{22}}-[0-9]+-[0-9]+(-again)*")


def belongs_to(deployment: str, name: str, named: str = "") -> bool | None:
    """Return whether the event is of this deployment. For two deployments, at most one answer is True.

    A topic's id has 22 characters and two numbers follow it, so `a-b-...` is of `a-b` and never of `a`.

    Args:
        name: the event's transaction id, also of one that was billed again (`-again`).
        named: see `deployment_named`.

    Returns:
        None = the id is the identity of a single call, and nothing else names a deployment: it may be anyone's.
    """
    if _SINGLE.fullmatch(name):
        return named == deployment if named else None
    return _part_of(deployment).fullmatch(name) is not None


def deployment_named(event: LagoEvent) -> str:
    """Return the deployment that the event of a single call names; `""` = none. Properties of a metered event are its
    sender's, and name none.
    """
    return "" if "transaction_id" in event.properties else event.properties.get(DEPLOYMENT, "")
