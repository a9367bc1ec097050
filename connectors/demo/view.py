"""Shows the running demo: a live view on a terminal, otherwise a line every few seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from connectors.demo.lago import BilledTotal
from connectors.demo.reconciliation import Reconciliation, counts_text, total
from connectors.demo.sample_orgs import MAPPED_LATE, Org
from connectors.demo.scraper import MetricsReading
from connectors.demo.traffic import ExpectedBill
from schemas.ledger import Sum
from schemas.money import plain
from schemas.plurals import numbered
from streams.core.metering.decisions import BILLED, DUPLICATE

_LINE_EVERY_S: Final = 3.0
_WIDTH: Final = 92


@dataclass(slots=True)
class DemoStatus:
    """The state that is shown.

    Fields:
        seconds: length of the traffic; `done_s`: seconds so far.
        began: when the traffic began, on the monotonic clock; None before.
        held: calls and dollars of customers that were mapped late, up to their mapping.
        mapped: those of them that are mapped now.
    """

    orgs: Sequence[Org]
    book: ExpectedBill
    seconds: int
    phase: str = ""
    began: float | None = None
    done_s: float = 0.0
    reading: MetricsReading = field(default_factory=MetricsReading)
    bill: BilledTotal = field(default_factory=BilledTotal)
    held: dict[str, Sum] = field(default_factory=dict)
    mapped: set[str] = field(default_factory=set)

    def look(self, now: float) -> None:
        """Update the time and the held amounts."""
        self.done_s = 0.0 if self.began is None else now - self.began
        for customer in MAPPED_LATE:
            if customer not in self.mapped:
                self.held[customer] = self.book.billable[customer]

    @property
    def duplicates(self) -> int:
        """Repeated deliveries that the meter recognised."""
        return self.reading.decisions.get(DUPLICATE, 0)

    @property
    def unbilled(self) -> int:
        """Calls that a decision keeps off the bill."""
        decided = self.reading.decisions
        return sum(calls for name, calls in decided.items() if name not in (*BILLED, DUPLICATE))

    @property
    def billed(self) -> Sum:
        """What Lago has billed on all subscriptions."""
        return total(self.bill.subscriptions.values())

    @property
    def posts(self) -> int:
        """Requests that brought events to Lago."""
        return self.reading.posts if self.bill.posts is None else self.bill.posts

    @property
    def saved(self) -> int:
        """Number of requests that were saved, compared with one post for each call."""
        return max(0, self.billed.calls - self.posts)


class View(Protocol):
    """Shows the state. It is a context manager, so that it can restore the terminal."""

    def show(self, demo_status: DemoStatus) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def view_for(console: Console) -> View:
    """Return the live view on a terminal, else lines."""
    return LiveView(console) if console.is_terminal else LineView(console)


class LineView:
    """Prints lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at = float("-inf")
        self._phase = ""

    def show(self, demo_status: DemoStatus) -> None:
        """Print a line at a new phase, or every `_LINE_EVERY_S` seconds."""
        if demo_status.phase == self._phase and demo_status.done_s - self._shown_at < _LINE_EVERY_S:
            return
        self._phase, self._shown_at = demo_status.phase, demo_status.done_s
        waiting = {name: held for name, held in demo_status.held.items() if name not in demo_status.mapped}
        held = ", ".join(
            f"{name} {numbered(amount.calls, 'call')} {_eye(amount.cost)} USD" for name, amount in waiting.items()
        )
        line = (
            f"{demo_status.done_s:4.0f} s  {demo_status.phase}: {numbered(demo_status.reading.accepted, 'call')} in, "
            f"{numbered(demo_status.reading.open_windows, 'window')} open, held: {held or 'nothing'}, {numbered(demo_status.bill.events, 'event')} and "
            f"{_eye(demo_status.billed.cost)} USD billed, {numbered(demo_status.saved, 'Lago post')} saved"
        )
        self._console.print(line, soft_wrap=True, highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is no terminal state to restore."""


class LiveView:
    """Draws a live picture, for terminals."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=8)

    def show(self, demo_status: DemoStatus) -> None:
        """Draw the state."""
        self._live.update(_picture(demo_status))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


#: The last lines.
NEXT_EXACT = (
    "The demo has stopped all its processes and has deleted its data.",
    "Next: docs/tutorial.md bills a real LiteLLM; README.md, *Point LiteLLM at it*, connects yours.",
)
NEXT_WRONG = (
    "The demo has stopped all its processes, and the sums differ: please open an issue.",
    "Next, read the log files in the folder that is named above, and add them to the issue.",
)


def show_reconciliation(console: Console, end: Reconciliation) -> None:
    """Print the comparison per org, the verdict, and two sentences: the present state, and the next step."""
    say = console.print
    say()
    head = f"  {'Reconciliation':<16}{'calls in':>10}{'billed':>10}{'USD in':>20}{'USD billed':>20}"
    say(Text(head, style="bold"), soft_wrap=True)
    for line in end.orgs:
        sent, billed = line.sent, line.billed
        text = f"  {line.name:<16}{sent.calls:>10}{billed.calls:>10}{plain(sent.cost):>20}{plain(billed.cost):>20}"
        mark = Text("  =", style="green") if sent == billed else Text("  differs", style="bold red")
        say(Text(text) + mark, soft_wrap=True)
    book = end.book
    calls = end.sent.calls + book.unbilled.total()
    decisions = end.reading.decisions
    for text in (
        f"{numbered(book.delivered, 'delivery')} = {numbered(calls, 'call')} + {numbered(book.repeats, 'repeat')}; {numbered(decisions.get(DUPLICATE, 0), 'repeat')} recognised",
        f"{numbered(calls, 'call')} = {end.sent.calls} to bill + {book.unbilled.total()} not ({counts_text(book.unbilled)})",
    ):
        say(f"  {text}", soft_wrap=True, highlight=False)
    for sentence in end.wrong:
        say(Text(f"  {sentence}", style="red"), soft_wrap=True)
    say(Text(end.verdict(), style="bold green" if end.exact else "bold red"), soft_wrap=True)
    for sentence in NEXT_EXACT if end.exact else NEXT_WRONG:
        say(sentence, soft_wrap=True, highlight=False)


def _picture(demo_status: DemoStatus) -> RenderableType:
    """Return the view in eighteen lines, so that it fits the smallest terminal."""
    title = Text.assemble(("meterbridge demo", "bold"), f"  {demo_status.phase}")
    clock = Text(f"{min(demo_status.done_s, demo_status.seconds):.0f} of {demo_status.seconds} s", style="dim")
    top = Table.grid(expand=True)
    top.add_column()
    top.add_column(justify="right")
    top.add_row(title, clock)
    bar = ProgressBar(demo_status.seconds, min(demo_status.done_s, demo_status.seconds))
    parts = (top, bar, Text(), _figures(demo_status), Text(), _held(demo_status), Text(), _orgs(demo_status))
    return Constrain(Padding(Group(*parts), (0, 2)), _WIDTH)


def _figures(demo_status: DemoStatus) -> Table:
    reading = demo_status.reading
    columns = (
        ("Calls", ("in", reading.accepted), ("repeats", demo_status.duplicates), ("not to bill", demo_status.unbilled)),
        ("Windows", ("open", reading.open_windows), ("held", reading.held_windows), ("sealed", reading.sealed)),
        (
            "Lago",
            ("events billed", demo_status.bill.events),
            ("USD billed", _eye(demo_status.billed.cost)),
            ("posts", demo_status.posts),
            ("posts saved", demo_status.saved),
        ),
    )
    side_by_side = Table.grid(padding=(0, 2), expand=True)
    tables = []
    for head, *figures in columns:
        side_by_side.add_column(ratio=1)
        table = _table(head, "")
        for name, figure in figures:
            table.add_row(Text(name, style="dim"), str(figure))
        tables.append(table)
    side_by_side.add_row(*tables)
    return side_by_side


def _held(demo_status: DemoStatus) -> Table:
    table = _table("Held money", "calls", "USD", "")
    for name in MAPPED_LATE:
        held = demo_status.held.get(name, Sum())
        if name not in demo_status.mapped:
            state = Text("waits for a mapping", style="yellow")
        elif demo_status.reading.held_windows:
            state = Text("mapped, being released", style="yellow")
        else:
            state = Text("mapped and released", style="green")
        table.add_row(name, str(held.calls), _eye(held.cost), state)
    return table


def _orgs(demo_status: DemoStatus) -> Table:
    table = _table("Orgs", "calls in", "billed", "USD in", "USD billed")
    for org in demo_status.orgs:
        sent = total(demo_status.book.billable[customer] for customer in org.customers)
        billed = demo_status.bill.subscriptions.get(org.subscription, Sum())
        figures = (str(sent.calls), str(billed.calls), _eye(sent.cost), _eye(billed.cost))
        table.add_row(org.name, *figures, style="green" if sent == billed and sent.calls else "")
    return table


def _table(head: str, *columns: str) -> Table:
    """Return a table with names on the left and figures on the right."""
    table = Table(box=None, expand=True, header_style="dim", pad_edge=False)
    table.add_column(Text(head, style="bold cyan"), ratio=2)
    for column in columns:
        table.add_column(column, justify="right", ratio=2)
    return table


def _eye(amount: Decimal) -> str:
    """Return dollars with six decimals, for display."""
    return f"{amount:,.6f}"
