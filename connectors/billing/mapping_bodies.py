"""The members of a mapping in a request: a row of an import, and the base class of the bodies of the mapping endpoints."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints

from schemas.customer_id import normalise_customer_id
from schemas.errors import Rejected
from schemas.moments import MOMENT_FORM, parse_us
from streams.core.mapping.set_mapping import MappingRequest


def _normal(text: str) -> str:
    normal = normalise_customer_id(text)
    if normal is None:
        raise ValueError("is empty once spaces are trimmed")
    return normal


def _moment_us(value: Any) -> int | None:
    try:
        return None if value is None else parse_us(value)
    except Rejected as error:
        why = error.detail.removesuffix(f"expected {MOMENT_FORM}").removesuffix(": ")
        raise ValueError(f"must be {MOMENT_FORM}{f'; {why}' if why else ''}") from None


#: Excludes control characters, because ids become Kafka keys, headers and database text.
Id = Annotated[str, StringConstraints(strip_whitespace=True, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
#: A caller's moment, validated to microseconds since 1970 UTC.
Moment = Annotated[int | None, BeforeValidator(_moment_us, json_schema_input_type=str | float | None)]


class MappingRow(BaseModel):
    """A row of an import. Unknown members are ignored, because exports of other systems have further columns.

    Fields:
        billing_plan: the code of the Lago plan to which `AUTO_SUBSCRIBE=1` subscribes an org without a subscription.
        is_active: false: usage of the customer is held.
        external_subscription_id: the subscription that pays; null = the running one of the Lago customer.
        effective_from: from when on the org pays, ISO 8601 or seconds since 1970; null = the earliest possible moment.
        id_kind: the mapping holds for calls whose customer id is from this field; null = for all calls.
        correct: true = the current mapping was a mistake, and this one replaces it from its beginning on; false = it was
            no mistake; null = it was a mistake if Lago does not know its org.
    """

    litellm_customer_id: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_normal)]
    lago_customer_id: Id
    lago_organization_id: Id
    billing_plan: Id = "ai_basic"
    is_active: bool = True
    external_subscription_id: Id | None = None
    effective_from: Moment = None
    id_kind: (
        Literal["end_user", "user", "team", "organization", "key", "customer", "subscription", "unattributed"] | None
    ) = None
    correct: bool | None = None

    def wanted(self) -> MappingRequest:
        """Return the row as a request to the core."""
        return MappingRequest(
            self.litellm_customer_id,
            self.lago_customer_id,
            self.lago_organization_id,
            self.billing_plan,
            self.is_active,
            self.external_subscription_id or "",
            self.id_kind or "",
            self.effective_from,
            self.correct,
        )
