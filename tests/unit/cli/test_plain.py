"""`serve` and `worker` start without the library of the command line; all other command lines go to the parsers."""

import ssl
import sys

import pytest

from connectors.cli.left_out import left_out
from connectors.cli.plain import plain_command


@pytest.mark.parametrize("words", [["serve"], ["worker"], ["worker", "--only", "meter"], ["serve", "--only", "api"]])
def test_the_command_of_a_container_is_plain(words: list[str]) -> None:
    assert plain_command(words) is not None


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["held", "list"],
        ["--version"],
        ["worker", "--help"],
        ["worker", "--only"],
        ["worker", "--only", "--help"],
        ["worker", "--only=meter"],
        ["serve", "api"],
    ],
)
def test_every_other_command_line_goes_to_the_parsers(words: list[str]) -> None:
    assert plain_command(words) is None


@pytest.mark.parametrize(
    ("words", "given"), [(["serve"], "webhooks,api"), (["worker"], None), (["worker", "--only", "meter"], "meter")]
)
def test_a_plain_command_gets_the_same_arguments_as_from_its_parser(
    monkeypatch: pytest.MonkeyPatch, words: list[str], given: str | None
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(f"connectors.cli.{words[0]}.{words[0]}", asked.append)
    run = plain_command(words)
    assert run is not None
    assert run() == 0
    assert asked == [given]


def test_a_left_out_module_is_missing_only_inside_the_block() -> None:
    name = "this"
    sys.modules.pop(name, None)
    with left_out(name, "ssl"):
        for missing in (name, "ssl"):
            with pytest.raises(ModuleNotFoundError):
                __import__(missing)
    assert name not in sys.modules
    assert __import__("ssl") is ssl
