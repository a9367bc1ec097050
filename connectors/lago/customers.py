"""Requests about customers, by external id.

Lago reads the path of a customer `a.b` as customer `a` in format `b`. So such an id is looked up in the list. It is
refused for requests that could affect another customer.
"""

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from connectors.lago.errors import LagoRejected
from connectors.lago.metadata import notes
from connectors.lago.requests import NewCustomer
from connectors.lago.responses import Customer
from connectors.lago.transport import LagoTransport, Page, Query, safe


class _Portal(msgspec.Struct):
    portal_url: str


class _Checkout(msgspec.Struct):
    checkout_url: str


class CustomersApi(LagoTransport):
    """`/customers`, except the customers' usage."""

    async def customer(self, external_id: str) -> Customer | None:
        """Return a customer; None if it does not exist. Raises: LagoIntegrationError."""
        if "." in external_id:
            listed = await self.customers(external_id=external_id)
            return next((customer for customer in listed if customer.external_id == external_id), None)
        path = f"/customers/{safe(self.in_lago(external_id))}"
        by_path = await self._get_or_none("customer", path, "customer", Customer)
        found = None if by_path is None else self._keyed(by_path)
        return found if found is not None and found.external_id == external_id else None

    async def customers(self, external_id: str = "", most: int | None = None) -> list[Customer]:
        """Return at most `most` customers, the newest first, or only the one with this id. Raises:
        LagoIntegrationError.
        """
        query: Query = {"external_id": self.in_lago(external_id)} if external_id else {}
        listed = await self._every("customers", "/customers", "customers", Customer, query, most)
        return [self._keyed(customer) for customer in listed]

    async def customers_page(self, number: int, size: int) -> Page[Customer]:
        """Return one page of all customers, the newest first. Raises: LagoIntegrationError."""
        page = await self._page("customers", "/customers", "customers", Customer, {}, number=number, size=size)
        return replace(page, members=[self._keyed(customer) for customer in page.members])

    async def save_customer(self, new_customer: NewCustomer, metadata: Mapping[str, str] | None = None) -> Customer:
        """Create a customer, or change the given fields; `metadata` is added to the existing entries. Repeating it is safe.

        Raises:
            LagoIntegrationError: also `bad_metadata`, see `notes`.
        """
        try:
            return await self._saved(new_customer, metadata)
        except LagoRejected as error:
            if not (error.says("external_id", "value_already_exist") or error.says("key", "value_already_exist")):
                raise
        return await self._saved(
            new_customer, metadata
        )  # another process has created the customer, so the request is a change now

    async def delete_customer(self, external_id: str) -> Customer | None:
        """Delete a customer; Lago then ends its subscriptions. Return None if it does not exist, so repeating the call
        is safe.

        Raises:
            LagoRejected: `unsafe_id`: Lago would delete another customer.
            LagoIntegrationError
        """
        path = f"/customers/{customer_part(self.in_lago(external_id))}"
        deleted = await self._get_or_none("delete_customer", path, "customer", Customer, verb="DELETE")
        return None if deleted is None else self._keyed(deleted)

    async def portal_url(self, external_id: str) -> str:
        """Return a link to the customer's own pages in Lago. It expires after 12 hours. Raises: LagoIntegrationError."""
        path = f"/customers/{customer_part(self.in_lago(external_id))}/portal_url"
        return (await self._one("portal_url", path, "customer", _Portal)).portal_url

    async def checkout_url(self, external_id: str) -> str:
        """Return a link to the page where the customer enters a payment method.

        Raises:
            LagoRejected: with Lago's code, e.g. `validation_errors`, `no_linked_payment_provider`.
            LagoIntegrationError
        """
        path = f"/customers/{customer_part(self.in_lago(external_id))}/checkout_url"
        return (await self._one("checkout_url", path, "customer", _Checkout, verb="POST")).checkout_url

    async def _saved(self, new_customer: NewCustomer, metadata: Mapping[str, str] | None) -> Customer:
        if metadata:
            known = await self.customer(new_customer.external_id)
            entries = notes(known.metadata if known is not None else (), metadata)
            new_customer = msgspec.structs.replace(new_customer, metadata=entries)
        body = msgspec.structs.replace(new_customer, external_id=self.in_lago(new_customer.external_id))
        return self._keyed(await self._one("save_customer", "/customers", "customer", Customer, verb="POST", body=body))

    def _keyed(self, customer: Customer) -> Customer:
        """Replace the customer's id by the key of its org."""
        if not self.organization_name:
            return customer
        return msgspec.structs.replace(customer, external_id=self.named(customer.external_id))


def customer_part(external_id: str) -> str:
    """Encode a customer's id as one segment of a path. Raises: LagoRejected `unsafe_id`."""
    if "." in external_id:
        raise LagoRejected(
            "unsafe_id", "Lago reads a customer's id up to its first dot: it would find another customer"
        )
    return safe(external_id)


def check_new_id(external_id: str) -> None:
    """Check the id of a customer that is to be made. One that Lago has already may have any id.

    Raises: LagoRejected `unsafe_id`: it has a dot, a space or a percent sign: it was encoded by mistake, and no usage
        would name it.
    """
    customer_part(external_id)
    if "%" in external_id or any(sign.isspace() for sign in external_id):
        raise LagoRejected(
            "unsafe_id", "the id of a new org has a space or a percent sign: use letters, digits, _, : and -"
        )
