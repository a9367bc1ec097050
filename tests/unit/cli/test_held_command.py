"""`meterbridge held` with a pattern: what it prints, and that it changes nothing before a person confirms."""

from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.cli import held as command
from connectors.cli.parsers.held import held
from connectors.config.settings import load_settings
from connectors.operations.ledgers import Held

FLOOD = [Held(f"attack-{n}", "end_user", "no_mapping", 1, 1, Decimal("0.5"), 1, 1) for n in range(1500)]
HONEST = [
    Held("acme", "team", "no_subscription", 1, 7, Decimal(90), 1, 1),
    Held("unattributed:k", "unattributed", "no_mapping", 1, 2, Decimal(80), 1, 1),
]
WORDS = ["write-off", "--match", "attack-*", "--comment", "invented"]


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Patterns and numbers of customers for which a write-off was ordered; stdin is a terminal."""
    done: list[tuple[str, int]] = []

    def order(_settings: Any, _sender: Any, found: list[Held], pattern: str, *_: Any) -> str:
        done.append((pattern, len(found)))
        return "audit-1"

    monkeypatch.setattr(command, "settings_of_command", load_settings)
    monkeypatch.setattr(command, "CommandProducer", lambda _kafka: None)
    monkeypatch.setattr(command, "_read", lambda _deployment, _until_us=None, *, quiet: [*HONEST, *FLOOD])
    monkeypatch.setattr(command, "order_write_off_of_all", order)
    monkeypatch.setattr(command, "_watched", lambda: True)
    return done


def run(*words: str, says: str = "") -> tuple[int, str]:
    ended = CliRunner().invoke(held, words, input=says)
    return ended.exit_code, ended.output


@pytest.mark.parametrize(("says", "done"), [("y\n", [("attack-*", 1500)]), ("n\n", []), ("\n", [])])
def test_a_write_off_by_pattern_shows_the_sums_and_waits_for_a_yes(
    ordered: list[tuple[str, int]], says: str, done: list[tuple[str, int]]
) -> None:
    code, result = run(*WORDS, says=says)
    assert code == 0
    assert "Write off 1500 customers, 1500 calls, 750 USD?" in result
    assert ordered == done
    assert ("Ordered" in result, "Would be written off" in result) == (bool(done), not done)


@pytest.mark.parametrize(("more", "done"), [(["--yes"], 1), (["--dry-run"], 0), (["--json"], 0)])
def test_with_yes_dry_run_or_json_no_question_is_asked(
    ordered: list[tuple[str, int]], more: list[str], done: int
) -> None:
    code, result = run(*WORDS, *more)
    assert (code, len(ordered), "Write off" in result) == (0, done, False)


def test_without_a_terminal_nothing_is_written_off(
    ordered: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_watched", lambda: False)
    code, result = run(*WORDS)
    assert (code, ordered, "Would be written off" in result) == (1, [], True)
    assert "Add --yes to write off without a question." in " ".join(result.split())


def test_a_table_shows_the_largest_amounts_of_a_flood_and_the_number_of_customers(
    ordered: list[tuple[str, int]],
) -> None:
    code, result = run("list")
    assert (code, ordered) == (0, [])
    assert "The 1000 highest of 1502" in result
    assert result.count("attack-") == 998


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "nothing is held for 'nobody-*': see `meterbridge held list`."),
        (
            ["--until", "2026-11-20T10:03Z"],
            "nothing is held for 'nobody-*' of usage that ended by 2026-11-20T10:03Z: see `meterbridge held list`.",
        ),
    ],
)
def test_the_message_that_nothing_is_held_names_a_time_only_if_one_was_given(
    ordered: list[tuple[str, int]], more: list[str], sentence: str
) -> None:
    code, result = run("write-off", "--match", "nobody-*", "--comment", "x", *more)
    assert (code, ordered) == (1, [])
    assert sentence in " ".join(result.split())


def test_a_selection_that_matches_nothing_says_what_is_held_besides(ordered: list[tuple[str, int]]) -> None:
    """Earlier a misspelt customer got the answer that nothing is held."""
    assert not ordered
    result = run("list", "--customer", "acmee")
    assert result == (0, "Nothing is held for 'acmee'. Usage of 1502 customers is held: did you mean acme?\n")
    assert run("list", "--match", "zz*") == (0, "Nothing is held for 'zz*'. Usage of 1502 customers is held.\n")
    code, sentence = run("write-off", "--customer", "acmee", "--comment", "x")
    assert code == 1 and "nothing is held for 'acmee': did you mean acme? See `meterbridge held list`." in sentence


def test_a_reason_is_explained_below_the_list(ordered: list[tuple[str, int]]) -> None:
    assert not ordered
    assert "no_mapping: the customer has no mapping." in run("list", "--customer", "unattributed:k")[1]
