"""The mutants' lists of rules, named mistakes and reviewed survivors refer to existing code."""

import pytest

from tests.mutants.nearness import near, rounds
from tests.mutants.rules import LEFT_OUT, ROOT, Mistake, accepted, mistakes, rules


def test_every_rule_is_a_module_with_unit_tests_near_it() -> None:
    """New modules of the folders are included automatically."""
    assert len(rules()) >= 45
    assert {
        "streams/core/mapping/subscription_choice.py",
        "streams/core/delivery/restamp.py",
        "connectors/access/keys.py",
    } <= set(rules())
    for file in rules():
        assert (ROOT / file).exists(), file
        assert near(file), f"no unit test imports {file}"


def test_every_excluded_module_exists_and_has_a_reason() -> None:
    for file, reason in LEFT_OUT.items():
        assert (ROOT / file).exists(), file
        assert file not in rules()
        assert len(reason) > 20, file


@pytest.mark.parametrize("mistake", mistakes(), ids=lambda one: f"{one.file}-{one.becomes}")
def test_every_named_mistake_changes_existing_code(mistake: Mistake) -> None:
    """Its line occurs exactly once, and the changed file is valid Python."""
    mutant = mistake.mutant()
    compile(mutant.text, mistake.file, "exec")
    assert mutant.text != (ROOT / mistake.file).read_text(encoding="utf-8")
    assert mistake.file in rules()
    assert len(mistake.why) > 20


def test_a_mistake_whose_line_does_not_occur_exactly_once_is_refused() -> None:
    for was in ("no such line", "import"):
        with pytest.raises(ValueError, match="has it"):
            Mistake("streams/core/metering/known_identities.py", was, "pass", "").mutant()


def test_a_modules_own_tests_run_first_and_no_other_is_left_out() -> None:
    first, *later = rounds("streams/core/metering/fold.py")
    assert first[0] == "tests/unit/streams/core/metering/test_fold.py"
    reached = [test for some in (first, *later) for test in some]
    assert len(reached) == len(set(reached))
    assert "tests/unit/streams/core/metering/test_decisions.py" in reached
    assert "tests/unit/repository/test_docs.py" not in reached


def test_every_reviewed_survivor_is_an_existing_line_and_has_a_reason() -> None:
    for (file, was, becomes), reason in accepted().items():
        lines = [line.strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
        assert was in lines, (file, was)
        assert was != becomes
        assert len(reason) > 20, (file, was)
