"""Subscription ids are made by a template; every org gets its own id."""

import pytest

from connectors.billing.subscription_id_store import InMemoryIds
from schemas.errors import Rejected
from streams.core.mapping.subscription_ids import BY_MOMENT, STABLE, check_template, subscription_id


def test_the_documented_template_and_the_stable_template_give_these_ids() -> None:
    for template, created in ((BY_MOMENT, "org_1_starter_1760383370"), (STABLE, "sub_org_1")):
        check_template(template)
        assert subscription_id(template, "org_1", "starter", 1_760_383_370) == created


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
def test_a_template_without_the_org_or_with_an_unknown_field_is_refused(template: str) -> None:
    with pytest.raises(Rejected, match="bad_template"):
        check_template(template)


async def test_the_first_proposed_id_stays() -> None:
    ids = InMemoryIds()
    assert await ids.recall("org_1") is None
    assert await ids.remember("org_1", "first") == "first"
    assert (await ids.remember("org_1", "second"), await ids.recall("org_1")) == ("first", "first")
