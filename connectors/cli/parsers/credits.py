"""Words, options and help of `meterbridge credits`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, group

credits_group = group("Prepaid credits of users and orgs. Needs Postgres.")

Account = Annotated[str, typer.Argument(help="user:ID or org:ID.")]
Amount = Annotated[str, typer.Argument(help="US dollars, like 25 or 0.50.")]
Key = Annotated[
    str,
    typer.Option(
        help="A name of this movement: a command that is repeated with the same name changes nothing. Default: a new name."
    ),
]
Overdraft = Annotated[
    bool, typer.Option("--overdraft", help="Take more than the balance, too: what it does not cover is owed.")
]


@credits_group.command(epilog="Example: meterbridge credits grant user:ada 25 --expires 90d --comment welcome")
@deferred()
def grant(
    account: Account,
    amount: Amount,
    kind: Annotated[
        str, typer.Option("--type", help="bonus, purchase, refund (of usage), or adjustment, which may be below 0.")
    ] = "bonus",
    expires: Annotated[
        str,
        typer.Option(help="The credits expire after this time, like 90d: at the end of that day, UTC. Default: never."),
    ] = "",
    key: Key = "",
    comment: Comment = "",
    overdraft: Overdraft = False,
    new: Annotated[
        bool, typer.Option("--new", help="Make the account even if no usage, mapping or org has this id yet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add credits to an account. The first credits make it; an id that nothing else has needs --new."""


@credits_group.command(epilog="Example: meterbridge credits refund user:ada 10 --key invoice-7 --comment cancelled")
@deferred()
def refund(
    account: Account,
    amount: Amount,
    payment: Annotated[
        str,
        typer.Option(
            "--of", help="The payment that is refunded: Stripe's id of it, or the transaction_id of its purchase."
        ),
    ] = "",
    key: Key = "",
    comment: Comment = "",
    overdraft: Overdraft = False,
    as_json: AsJson = False,
) -> None:
    """Take back credits whose price was refunded, beginning with the credits of that payment. An amount above the
    balance needs --overdraft.
    """


@credits_group.command(epilog="Example: meterbridge credits balance org:acme --json")
@deferred()
def balance(account: Account, as_json: AsJson = False) -> None:
    """Show how much an account can spend, how much is reserved and owed, and its grants."""


@credits_group.command(epilog="Example: meterbridge credits transactions user:ada --limit 50")
@deferred()
def transactions(
    account: Account,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The largest number of transactions.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="How many of the latest are left out.")] = 0,
    as_json: AsJson = False,
) -> None:
    """List an account's transactions, the latest first."""


@credits_group.command(epilog="Example: meterbridge credits check --json")
@deferred()
def check(as_json: AsJson = False) -> None:
    """Check that all credits balance.

    Exit code 0: every transaction sums to zero, and every balance is the sum of its entries; 1: the errors are listed.
    """
