"""Pages of the mappings of some orgs: the whole table is searched once for each of its versions."""

from types import SimpleNamespace
from typing import Any

from connectors.billing.mapping_pages import MappingPages


class Table:
    """A table whose reading is counted."""

    def __init__(self, payers: dict[str, str]) -> None:
        self.payers = payers
        self.version = self.members = 1
        self.read = 0

    @property
    def table(self) -> dict[str, Any]:
        self.read += 1
        versions = {name: (SimpleNamespace(lago_customer_id=org),) for name, org in self.payers.items()}
        return {name: SimpleNamespace(versions=of) for name, of in versions.items()}


async def test_pages_of_some_orgs_hold_and_name_only_their_customers() -> None:
    customers: Any = Table({f"{number:05}": f"org_{number % 10}" for number in range(10_000)})
    mappings: Any = SimpleNamespace(mapped=lambda name, predicate: name if predicate(name) else None)
    pages = MappingPages(mappings, customers)
    own = [f"{number:05}" for number in range(10_000) if number % 10 in (3, 7)]
    found, after = list[Any](), ""
    while True:
        page = await pages.page(after, "0", lambda _: True, 300, frozenset({"org_3", "org_7"}))
        found += page.mappings
        if page.last is None:
            break
        assert page.last == page.mappings[-1]
        after = page.last
    assert found == own
    assert customers.read == 1
    customers.payers["00000"] = "org_3"
    customers.version += 1
    page = await pages.page("", "", lambda name: name != "00003", 2, frozenset({"org_3", "org_7"}))
    assert (page.mappings, page.last) == (["00000", "00007"], "00007")
    assert await pages.page("", "", lambda _: True, 2, frozenset()) == ([], None)


async def test_a_large_table_that_changes_is_searched_at_most_every_five_seconds() -> None:
    customers: Any = Table({"a": "org_1"})
    customers.members = 50_001
    mappings: Any = SimpleNamespace(mapped=lambda name, predicate: name if predicate(name) else None)
    now = 0.0
    pages = MappingPages(mappings, customers, lambda: now)
    mine = frozenset({"org_1"})

    async def listed() -> list[Any]:
        customers.version += 1
        return (await pages.page("", "", lambda _: True, 10, mine)).mappings

    assert await listed() == ["a"]
    customers.payers["b"] = "org_1"
    now = 4.9
    assert await listed() == ["a"]
    assert customers.read == 1
    now = 5.0
    assert await listed() == ["a", "b"]
    customers.members = 50_000
    customers.payers["c"] = "org_1"
    assert await listed() == ["a", "b", "c"]
