"""How the external id of an org's subscription is made from a template; pure.

A second id for the same org would be a second subscription, and both would be billed. So an id is made once for an org,
whatever becomes of its plan (docs/orgs.md).
"""

from string import Formatter
from typing import Final

from schemas.errors import Rejected

#: As documented; the timestamp is the second it was made in.
BY_MOMENT: Final = "{org_id}_{plan_code}_{timestamp}"
#: The same whenever and wherever it is made.
STABLE: Final = "sub_{org_id}"

_FIELDS = {"org_id", "plan_code", "timestamp"}


def check_template(template: str) -> None:
    """Refuse a template by which two orgs could share an id.

    Raises:
        Rejected: `bad_template`: it has no `{org_id}`, or a field that there is not.
    """
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise Rejected("bad_template", str(error)) from error
    names = {name for name, _, _ in fields}
    if "org_id" not in names or not names <= _FIELDS or any(spec or conversion for _, spec, conversion in fields):
        raise Rejected("bad_template", "it takes {org_id}, and may take {plan_code} and {timestamp}")


def subscription_id(template: str, org_id: str, plan_code: str, now_s: int) -> str:
    """An id by the template; `now_s`: seconds since 1970."""
    return template.format(org_id=org_id, plan_code=plan_code, timestamp=now_s)
