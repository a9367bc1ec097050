"""A mapping as somebody writes it: a row of an import, and the beginning of what the mapping endpoints take."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints

from schemas.customer_id import normalise_customer_id
from schemas.errors import Rejected
from schemas.moments import parse_us
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
        raise ValueError(f"should be ISO 8601 or seconds since 1970: {error.detail}") from None


#: No control characters: ids become Kafka keys, headers and database text.
Id = Annotated[str, StringConstraints(strip_whitespace=True, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Moment = Annotated[int | None, BeforeValidator(_moment_us, json_schema_input_type=str | float | None)]


class MappingRow(BaseModel):
    """A row of an import; unknown members are ignored, for exports of other systems have columns of their own.

    Fields:
        effective_from: ISO 8601 or seconds since 1970; microseconds once read.
        id_kind: only calls whose customer id came from this field are meant; None = all.
        correct: true = the mapping in force was a mistake, and this one takes its place from its beginning on; false =
            it was none; None = it was one if Lago does not know its org.
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
        """As the core takes it."""
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
