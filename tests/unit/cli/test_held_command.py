"""`meterbridge held` with a pattern: what it prints, and that it changes nothing before a person confirms."""

import json
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.cli import held as command
from connectors.cli import unknown_customer
from connectors.cli.parsers.held import held
from connectors.config.settings import load_settings
from connectors.operations.backlog import Backlog
from connectors.operations.known_ids import KnownId
from connectors.operations.ledgers import Held
from connectors.operations.unread import Unread
from schemas.errors import Unavailable

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
    monkeypatch.setattr(command, "uncounted_now", lambda _deployment: Backlog("raw", "meter"))
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
    assert result == (0, "Nothing is held for 'acmee'. Usage of 1502 customers is held. Did you mean acme?\n")
    assert run("list", "--match", "zz*") == (0, "Nothing is held for 'zz*'. Usage of 1502 customers is held.\n")
    code, sentence = run("write-off", "--customer", "acmee", "--comment", "x")
    assert code == 1 and "nothing is held for 'acmee': see `meterbridge held list`. Did you mean acme?" in sentence


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (KnownId(known=True), ""),
        (KnownId(known=False, meant="did you mean initech?"), " No customer 'initec' is known: did you mean initech?"),
        (KnownId(known=False), " No customer 'initec' is known: is it the id that LiteLLM has?"),
    ],
)
def test_a_customer_that_nobody_knows_is_not_reported_as_one_without_held_usage(
    ordered: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, known: KnownId, says: str
) -> None:
    """An org is not known here either: `--customer` takes the id of LiteLLM's customer."""
    assert not ordered
    monkeypatch.setenv("DATABASE_URL", "postgresql:///x")
    monkeypatch.setattr(unknown_customer, "ask_database", lambda *_: known)
    assert run("list", "--customer", "initec") == (
        0,
        f"Nothing is held for 'initec'. Usage of 1502 customers is held.{says}\n",
    )


def test_a_list_is_whole_without_postgres(ordered: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> KnownId:
        raise Unavailable("postgres_away", "ConnectionRefusedError")

    assert not ordered
    monkeypatch.setenv("DATABASE_URL", "postgresql:///x")
    monkeypatch.setattr(unknown_customer, "ask_database", away)
    code, result = run("list", "--customer", "initec")
    assert code == 0 and "Whether this customer is known cannot be seen: Postgres: postgres_away." in result


def test_calls_that_no_meter_has_read_are_named_below_the_list_and_in_json(
    ordered: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an earlier version only an empty list said so."""
    assert not ordered
    monkeypatch.setattr(command, "uncounted_now", lambda _: Backlog("raw", "meter", Unread(2, 3.0), runs=False))
    says = "2 calls in raw are not counted yet, the oldest is 3 s old, and no meter runs: `meterbridge worker --only meter`."
    for words in (("--customer", "acme"), ("--customer", "nobody")):
        assert says in " ".join(run("list", *words)[1].split()), words
    assert json.loads(run("list", "--json")[1])["uncounted"] == {
        "records": 2,
        "oldest_seconds": 3.0,
        "role_runs": False,
    }


@pytest.mark.parametrize(
    ("reason", "code", "says"),
    [
        ("no_subscription", 0, "acme"),
        ("no_maping", 2, "no usage is held for 'no_maping': did you mean no_mapping? Reasons are ambiguous, "),
        ("cost_differs", 2, "dead letters have it, see `meterbridge dlq list --reason cost_differs`."),
        ("unpriced", 2, "counted calls are not billed for it, see `meterbridge reconcile`."),
    ],
)
def test_held_usage_is_selected_by_its_reason_and_a_reason_of_another_list_is_named(
    ordered: list[tuple[str, int]], reason: str, code: int, says: str
) -> None:
    assert not ordered
    result = run("list", "--reason", reason)
    assert (result[0], says in " ".join(result[1].split()), "attack-" in result[1]) == (code, True, False)


def test_a_reason_is_explained_below_the_list(ordered: list[tuple[str, int]]) -> None:
    assert not ordered
    assert "no_mapping: the customer has no mapping." in run("list", "--customer", "unattributed:k")[1]
