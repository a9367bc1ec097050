"""Makes the external id of an org's subscription from a template; pure.

With a second id the org would have a second subscription, and Lago would bill both. So an org gets one id, which never
changes, even if its plan changes (docs/orgs.md).
"""

from string import Formatter
from typing import Final

from schemas.errors import Rejected

#: The documented template; the timestamp is the second in which the id is made.
BY_MOMENT: Final = "{org_id}_{plan_code}_{timestamp}"
#: A template that produces the same id at any time and in any process.
STABLE: Final = "sub_{org_id}"

_FIELDS = {"org_id", "plan_code", "timestamp"}


def check_template(template: str) -> None:
    """Refuse a template that could give two orgs one id.

    Raises:
        Rejected: `bad_template`: it lacks `{org_id}`, or has an unknown field.
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
    """Make the id from the template. `now_s`: seconds since 1970 UTC."""
    return template.format(org_id=org_id, plan_code=plan_code, timestamp=now_s)
