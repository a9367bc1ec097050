"""Commands that do not print unexpected arguments: an argument may be a secret that was pasted in the wrong place.

The output of a command is stored longer and read by more people than its input, for example in the log of a pipeline.
A list of commands shows the first sentence of each docstring, and the help of a command all of it.
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

#: Between two sentences: `e.g. x` is none.
_END: Final = re.compile(r"(?<=\.) (?=[A-Z])")

#: A number below 0 as an argument.
_BELOW_ZERO: Final = re.compile(r"-\.?[0-9]")

#: Options that may be empty or only white space, and those that name a file: its name may have any bytes.
_MAY_BE_EMPTY: Final = frozenset({"comment"})
_MAY_BE_SPACE: Final = frozenset({"delimiter"})
_FILES: Final = frozenset({"file", "mapping_sql"})
_EMPTY: Final = "empty"
_NO_FILE: Final = Path()  # what an empty value for a file becomes; no command takes the folder in which it runs


class CommandParser(TyperCommand):
    """A command that reports how many arguments were unexpected, but does not print them.

    It refuses an option with an empty value. `--customer "$CUSTOMER"` with an unset variable would otherwise mean all
    customers, and `--expires "$TIME"` never. It also refuses a value that is not UTF-8, because Kafka's keys, Postgres
    and the audit log hold only that.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words behind the command. Raises: UsageError: some are left, or a value is empty or not UTF-8."""
        ctx.allow_extra_args = True
        # Otherwise `-5` would be an unknown option, and the answer nothing about amounts.
        ctx.ignore_unknown_options = any(_BELOW_ZERO.match(word) for word in args)
        try:
            left = super().parse_args(ctx, args)
        except typer.BadParameter as wrong:
            wrong.message = wrong.message.removeprefix("Value error, ")  # the word of a library, not ours
            raise
        if left and not ctx.resilient_parsing:
            one = len(left) == 1
            ctx.fail(f"{len(left)} {'argument was' if one else 'arguments were'} not expected")
        if not ctx.resilient_parsing:
            for option in self.params:
                if found := _wrong(ctx, option.name or ""):
                    is_option = option.param_type_name == "option"
                    word = option.opts[0] if is_option else (option.name or "").upper()
                    left_out = (
                        ": give a value, or leave it out" if is_option and not option.required else ": give a value"
                    )
                    ctx.fail(f"{word} is {found}{left_out if found == _EMPTY else ''}")
        return left


def _wrong(ctx: Any, name: str) -> str:
    """Return what is wrong with the value of a parameter, `""` = nothing, or it was not given on the command line."""
    value = ctx.params.get(name)
    if getattr(ctx.get_parameter_source(name), "name", "") != "COMMANDLINE":
        return ""
    for text in value if isinstance(value, list | tuple) else (value,):
        if text == _NO_FILE:
            return _EMPTY
        if not isinstance(text, str):
            continue
        if not (text if name in _MAY_BE_SPACE else text.strip()) and name not in _MAY_BE_EMPTY:
            return _EMPTY
        if not _is_utf8(text) and name not in _FILES:
            return "not UTF-8: type it in a terminal with this encoding"
    return ""


def _is_utf8(text: str) -> bool:
    """Return whether the text can be written as UTF-8: Python keeps a byte that could not be read as a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class GroupParser(TyperGroup):
    """A group that suggests similar commands, but does not print the unknown word."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first word. Raises: UsageError: there is none."""
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-") and not ctx.resilient_parsing:
            meant = [repr(name) for name in get_close_matches(word, self.list_commands(ctx))]
            hint = f"Did you mean {', '.join(meant)}?" if meant else f"{ctx.command_path} --help lists them."
            ctx.fail(f"No such command. {hint}")
        return super().resolve_command(ctx, args)


class Commands(typer.Typer):
    """A group of these classes, whose commands are of them too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"cls": GroupParser} | options)

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        """Make a command of a function."""

        def declare(work: Callable[..., Any]) -> Callable[..., Any]:
            of_class: dict[str, Any] = {"cls": CommandParser, "short_help": first_sentence(work.__doc__ or "")}
            return super(Commands, self).command(name, **of_class | options)(work)

        return declare


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    return _END.split(" ".join(text.split()), maxsplit=1)[0]
