"""The descriptions of properties and parameters in the OpenAPI document: from the `Fields:` section of the model's docstring, else,
for a name that means the same in all models, from `SHARED`.
"""

import re
from collections.abc import Iterable, Mapping
from inspect import cleandoc
from typing import Any, Final, get_args

from pydantic import BaseModel

Json = dict[str, Any]
_ENTRY: Final = re.compile(r"^ {4}([a-z]\w*(?:, [a-z]\w*)*): (.+)$")
#: What pydantic adds to the name of a model that is both a body and an answer, and has two schemas.
_READ_OR_WRITTEN: Final = re.compile("-(Input|Output)$")
#: Values of JSON, which are written as JSON has them at the beginning of a text, too.
_LITERALS: Final = ("true", "false", "null")
_FIELDS: Final = "\nFields:\n"

#: A model whose field means more than this says so in its docstring.
SHARED: Final[Mapping[str, str]] = {
    "account": "The credit account: `user:<id>` or `org:<id>`.",
    "amount_currency": "ISO 4217 code of the currency, e.g. `USD`.",
    "calls": "How many calls.",
    "charges": "One entry for each charge.",
    "completion_tokens": "Output tokens of the call.",
    "created_at": "When it was created, ISO 8601.",
    "created_by": "Who created it: a key or a user, as the audit log names them.",
    "currency": "ISO 4217 code of the currency, e.g. `USD`.",
    "customer_prefixes": "LiteLLM customers whose ids begin with one of these may be mapped by the key; null = no such rule.",
    "deleted": "true: from `effective_from` on there is no mapping.",
    "description": "A text for people.",
    "detail": "What is wrong, for people. It may change with a release.",
    "dry_run": "true: only say what would be done, and change nothing.",
    "email": "Where Lago sends invoices; null or empty = no address.",
    "errors": "What is wrong, one entry for each field.",
    "external_id": "The customer's id in Lago, chosen by you; in the other endpoints `org_id`.",
    "external_subscription_id": "Lago's `external_id` of the subscription.",
    "has_more": "true: there are older entries.",
    "invoices": "The invoices, the latest first.",
    "key_name": "The name by which the user tells keys for one provider apart.",
    "keys": "The keys, the latest first.",
    "lago_customer_id": "`external_id` of the Lago customer that pays.",
    "lago_id": "The id that Lago gave it; null = Lago does not know it yet.",
    "lago_organization_id": "A name for the organisation in Lago to which that customer belongs (docs/lago-organizations.md).",
    "last_used_at": "When it was last used, ISO 8601; null = never.",
    "limit": "The most entries that the answer has.",
    "litellm_customer_id": "The id that LiteLLM's calls have, at most 255 characters.",
    "meta": "Where this page stands in the list.",
    "model": "The model, as LiteLLM names it.",
    "name": "A name for people.",
    "next_cursor": "Send it as `cursor` to get the next page; null = there are no more.",
    "offset": "How many of the latest entries are left out before this page.",
    "org_id": "The org that is billed: `external_id` of its customer in Lago; of a further Lago organisation `<organisation>::<external_id>`.",
    "organization": "The Lago organisation that is asked, one of `LAGO_ORGANIZATIONS`; empty = the one of `LAGO_API_URL`.",
    "package_id": "The id of the credit package, of `GET /api/v1/credits/packages`.",
    "page": "Which page, the first is 1.",
    "per_page": "The most entries on a page.",
    "plan_code": "The code of the plan in Lago.",
    "power_level": "The effort that the call asked for: `eco`, `balanced` or `precision`.",
    "prompt_tokens": "Input tokens of the call.",
    "provider": "The LLM provider, as LiteLLM names it, e.g. `openai`.",
    "purchase_id": "The id of the purchase; Stripe's events carry it.",
    "reason": "A stable code; docs/errors.md has its cause and the next step.",
    "reservation_id": "The id of the reservation.",
    "revoked_at": "When it was revoked, ISO 8601; null = it was not.",
    "subscription": "The subscription that pays; null = there is none.",
    "taxes_amount_cents": "Taxes, in the smallest unit of the currency.",
    "transaction_id": "The id of this transaction.",
    "updated_at": "When it was last changed, ISO 8601.",
    "usd": "The cost of these calls in US dollars, a decimal.",
    "user": "Short for the account `user:<id>`.",
    "user_id": "The user's id, as in LiteLLM's calls.",
}

#: Parameters in a path. A key `path parameter` is for the paths that begin so.
PATHS: Final[Mapping[str, str]] = {
    "org_id": "The org: `external_id` of its customer in Lago; of a further Lago organisation `<organisation>::<external_id>`.",
    "plan_code": "The code of the plan in Lago.",
    "key_id": "The id of the API key: its prefix without `mb_`.",
    "reservation_id": "The id that the answer to the reservation had.",
    "provider_key_id": "The id of the provider key, as the list of keys shows it.",
    "/api/customers customer_id": "The customer's `external_id` in Lago; a name that LiteLLM's calls have as their customer.",
    "/customers customer_id": "The id that LiteLLM's calls have, percent-encoded.",
}


def path_text(path: str, name: str) -> str:
    """The description of a parameter of a path. Raises: KeyError: `PATHS` has none."""
    for key, text in PATHS.items():
        beginning, _, of = key.rpartition(" ")
        if of == name and path.startswith(beginning):
            return text
    raise KeyError(f"PATHS has no text for {name} of {path}")


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """The texts of a model's docstring and of those of its bases, by field."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        found |= _entries(cleandoc(part.__dict__.get("__doc__") or ""))
    return found


def describe(schemas: Mapping[str, Json], models: Mapping[str, type[BaseModel]]) -> None:
    """Write the descriptions into the schemas.

    Args:
        schemas: the schemas by name; changed in place.
        models: the model of each of them.

    Raises:
        KeyError: neither the docstring nor `SHARED` has a text for a property.
    """
    for name, schema in schemas.items():
        texts = field_texts(models[_READ_OR_WRITTEN.sub("", name)])
        if "description" in schema:
            schema["description"] = schema["description"].partition(_FIELDS)[0].strip()
        for field, of_field in schema.get("properties", {}).items():
            text = of_field.get("description") or texts.get(field) or SHARED.get(field)
            if text is None:
                raise KeyError(f"{name}.{field} has no text: write it into the docstring of {name}, below Fields:")
            of_field["description"] = text if text.startswith(_LITERALS) else text[0].upper() + text[1:]


def models_in(models: Iterable[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """These models and those of their fields, by name."""
    found: dict[str, type[BaseModel]] = {}
    waiting: list[Any] = list(models)
    while waiting:
        kind = waiting.pop()
        waiting += get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ not in found:
            found[kind.__name__] = kind
            waiting += [field.annotation for field in kind.model_fields.values()]
    return found


def _entries(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition(_FIELDS)[2].splitlines():
        if match := _ENTRY.match(line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif not line.startswith("        "):
            break
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
