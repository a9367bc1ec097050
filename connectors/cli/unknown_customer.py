"""Says whether the customer that a list was asked for is known: a misspelt id must not look like one without usage."""

from collections.abc import Collection

from connectors.cli.optional_database import ask_database
from connectors.config.settings import Settings
from connectors.operations.known_ids import known_customer
from connectors.operations.near_names import ID_ALIKE, did_you_mean
from schemas.errors import Unavailable


def nobody(settings: Settings, customer: str, listed: Collection[str]) -> str:
    """Return a sentence that begins with a space if the id is probably misspelt; otherwise `""`.

    Args:
        customer: the id of LiteLLM's customer; `""` = none was given.
        listed: the customers of the whole list. They are known without Postgres, which the deployment may not have.
    """
    if not customer or customer in listed:
        return ""
    if meant := did_you_mean(customer, listed, ID_ALIKE):
        return f" {meant[0].upper()}{meant[1:]}"
    if settings.postgres_url is None:
        return ""
    try:
        found = ask_database(settings, lambda database: known_customer(database, customer))
    except Unavailable as error:  # the list itself is whole without Postgres
        return f" Whether this customer is known cannot be seen: Postgres: {error.reason}."
    return (
        "" if found.known else f" No customer {customer!r} is known: {found.meant or 'is it the id that LiteLLM has?'}"
    )
