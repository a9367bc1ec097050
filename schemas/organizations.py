"""The key of an org in a further Lago organisation: `<organisation>::<external id>` (docs/adr/0044).

A Lago organisation is a tenant of Lago: an address, an API key and customers of its own. The organisation of
`LAGO_API_URL` is the default one. The keys of its orgs are the unchanged external ids of its customers. If two
organisations have customers with the same external id, these are two orgs with two keys. All records name an org by its
key, so data of two organisations are never mixed.
"""

from re import compile as re_compile
from typing import Final

#: The separator of the organisation's name and the customer's external id.
SEPARATOR: Final = "::"
#: The default organisation in records, and in labels of metrics.
DEFAULT, DEFAULT_LABEL = "", "default"
#: A name has no colon, so the first separator of a key ends it.
NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"

_NAME = re_compile(NAME_PATTERN)


def org_key(organization: str, external_id: str) -> str:
    """Return the key of the org for a customer with this external id in this organisation; `""` = the default one."""
    return f"{organization}{SEPARATOR}{external_id}" if organization else external_id


def is_name(text: str) -> bool:
    """Return whether an organisation other than the default one can have this name."""
    return _NAME.fullmatch(text) is not None


def begins_with(org_id: str) -> str:
    """Return the organisation's name at the beginning of a key; `""` = there is none.

    A customer of the default organisation may have such an external id, too: only the org's record knows
    (`OrgRecord.organization`).
    """
    name, separator, _ = org_id.partition(SEPARATOR)
    return name if separator and is_name(name) else ""


def external_id_of(organization: str, org_id: str) -> str:
    """Return the external id in Lago of an org of this organisation."""
    return org_id.removeprefix(f"{organization}{SEPARATOR}") if organization else org_id
