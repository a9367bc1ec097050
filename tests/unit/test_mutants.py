"""The mutants' list of rules and of reviewed survivors is about code that is there."""

from tests.mutants.run import ROOT, RULES, accepted, near


def test_every_rule_is_a_module_with_unit_tests_of_its_own() -> None:
    assert len(RULES) >= 17
    for file in RULES:
        assert (ROOT / file).exists(), file
        assert near(file), f"no unit test imports {file}"


def test_every_reviewed_survivor_is_a_line_that_is_still_there_and_has_a_reason() -> None:
    for (file, was, becomes), reason in accepted().items():
        lines = [line.strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
        assert was in lines, (file, was)
        assert was != becomes
        assert len(reason) > 20, (file, was)
