"""A subscription's id is made by a template in which every org has its own."""

import pytest

from connectors.billing.subscription_id_store import InMemoryIds
from schemas.errors import Rejected
from streams.core.mapping.subscription_ids import BY_MOMENT, STABLE, check_template, subscription_id


def test_the_documented_form_and_the_stable_one() -> None:
    for template, made in ((BY_MOMENT, "org_1_starter_1760383370"), (STABLE, "sub_org_1")):
        check_template(template)
        assert subscription_id(template, "org_1", "starter", 1_760_383_370) == made


@pytest.mark.parametrize(
    "template",
    [
        "",
        "sub",
        "{plan_code}_{timestamp}",
        "{org_id}_{user}",
        "{org_id",
        "{org_id.real}",
        "{org_id:>3}",
        "{org_id!r}",
        "{}_{org_id}",
    ],
)
def test_a_template_without_the_org_or_with_anything_else_is_refused(template: str) -> None:
    with pytest.raises(Rejected, match="bad_template"):
        check_template(template)


async def test_the_first_id_that_is_proposed_stays() -> None:
    ids = InMemoryIds()
    assert await ids.recall("org_1") is None
    assert await ids.remember("org_1", "first") == "first"
    assert (await ids.remember("org_1", "second"), await ids.recall("org_1")) == ("first", "first")
