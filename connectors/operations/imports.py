"""Imports rows of a file, several at the same time. An interrupted import can be repeated; no row takes effect twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, cast

import msgspec
from pydantic import AliasChoices, BaseModel

from connectors.http.problem import Problem
from connectors.http.request_models import parsed
from connectors.lago.errors import reason_of
from connectors.operations.near_names import misspelt_column
from connectors.operations.row_files import Row
from schemas.errors import MeterbridgeError, Rejected, Unavailable

CREATED, CHANGED, UNCHANGED = "created", "changed", "unchanged"
#: The most refused rows that are listed. All are counted.
MAX_NAMED: Final = 1000
M = TypeVar("M", bound=BaseModel)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class RowsWarning(NamedTuple):
    """What is probably wrong with rows that were taken: the org, None = several; the number of its rows; a sentence."""

    org_id: str | None
    rows: int
    warning: str


@dataclass(slots=True)
class Imported:
    """The outcomes of the rows.

    Fields:
        refused: number of rows with an error; `errors` lists the first of them: line, reason, detail, wrong fields.
        warnings: about rows that were taken.
    """

    read: int = 0
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[RowsWarning] = field(default_factory=list)

    def did(self, what: str) -> None:
        """Count a row by its outcome."""
        setattr(self, what, getattr(self, what) + 1)

    def refuse(self, line: int, reason: str, detail: str = "", **more: Any) -> None:
        """Count a refused row, and list it."""
        self.refused += 1
        if len(self.errors) < MAX_NAMED:
            self.errors.append({"line": line, "reason": reason, "detail": detail or reason, **more})

    def as_object(self) -> dict[str, Any]:
        """Return the report for programs; errors in order of their lines."""
        counts = {name: getattr(self, name) for name in ("read", CREATED, CHANGED, UNCHANGED, "refused")}
        errors = sorted(self.errors, key=lambda error: error["line"])
        return {**counts, "errors": errors, "warnings": [one._asdict() for one in self.warnings]}


class ImportKind(Protocol[M]):
    """One kind of rows: reads a row and carries it out."""

    model: type[M]

    def key(self, row: M) -> str:
        """Return the key of a row. Rows with the same key are carried out one after the other, in the file's order."""

    async def take(self, row: M) -> str:
        """Carry out a row; return `created`, `changed` or `unchanged`. Raises: MeterbridgeError; after Unavailable a
        repeat may succeed.
        """

    async def warnings(self) -> list[RowsWarning]:
        """Return what is probably wrong with the rows that were taken."""


class Import(Generic[M]):
    """One import.

    Args:
        at_once: number of rows that are carried out at the same time.
        patience_s: how long a row is retried while Kafka or Lago does not answer, until the import ends, seconds.
        as_object: called with the number of rows that were carried out or refused.
        refusing: called with the error of each refused row.
    """

    def __init__(
        self,
        kind: ImportKind[M],
        at_once: int,
        patience_s: float = 0.0,
        on_progress: Callable[[int], None] = lambda _: None,
        refusing: Callable[[Problem], None] = lambda _: None,
    ) -> None:
        self.done = Imported()
        self._kind = kind
        self._columns = columns_of(kind.model)
        self._slots = asyncio.Semaphore(at_once)
        self._patience_s = patience_s
        self._on_progress = on_progress
        self._refusing = refusing
        self._last: dict[str, asyncio.Task[None]] = {}

    async def run(self, rows: AsyncIterator[Row], pace: Callable[[], Awaitable[None]] | None = None) -> Imported:
        """Carry out every row; `pace` is awaited before each row.

        Raises:
            Unavailable: Kafka or Lago does not answer; `done` has the outcomes up to now. Start again: a row takes
                effect once.
            Rejected: the file itself cannot be read; see `rows`.
        """
        ended: MeterbridgeError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    async for row in rows:
                        await self._begin(group, row, pace)
                except MeterbridgeError as error:
                    ended = error  # rows that were read before are finished first
        except BaseExceptionGroup as several:
            raise _first(several) from None
        if ended is not None:
            raise ended
        self.done.warnings += await self._kind.warnings()
        return self.done

    async def _begin(self, group: asyncio.TaskGroup, row: Row, pace: Callable[[], Awaitable[None]] | None) -> None:
        self.done.read += 1
        if (known := self._readable(row)) is None:
            return
        if pace is not None:
            await pace()
        await self._slots.acquire()
        key = self._kind.key(known)
        task = group.create_task(self._take(row.line, known, self._last.get(key)))
        self._last[key] = task
        task.add_done_callback(partial(self._ended, key))

    def _readable(self, row: Row) -> M | None:
        if row.wrong:
            self._refuse(row.line, Problem(422, row.wrong, row.detail))
            return None
        try:
            known = parsed(self._kind.model, row.body, "the row, an object in one line or a member of one array,")
            if misspelt := misspelt_column(_members(row.body), self._columns):
                raise Problem(422, "invalid_fields", misspelt)
            return cast("M", known)
        except Problem as problem:
            self._refuse(row.line, problem)
            return None

    async def _take(self, line: int, row: M, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            self.done.did(await self._tried(row))
        except Problem as problem:
            self._refuse(line, problem)
            return
        except Unavailable:
            raise
        except Rejected as error:
            self._refuse(line, Problem(422, reason_of(error), error.detail))
            return
        self._on_progress(1)

    async def _tried(self, row: M) -> str:
        clock = asyncio.get_running_loop().time
        deadline, wait_s = clock() + self._patience_s, 0.5
        while True:
            try:
                return await self._kind.take(row)
            except Unavailable:
                if clock() + wait_s > deadline:
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(8.0, wait_s * 2)

    def _refuse(self, line: int, problem: Problem) -> None:
        self.done.refuse(line, problem.reason, problem.detail, **problem.members)
        self._refusing(problem)
        self._on_progress(1)

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        self._slots.release()
        if self._last.get(key) is task:
            del self._last[key]


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that ended the import: an unexpected exception if there is one, otherwise the first error of
    Kafka or Lago.
    """
    error: BaseException = several
    while isinstance(error, BaseExceptionGroup):
        error = next((one for one in error.exceptions if not isinstance(one, MeterbridgeError)), error.exceptions[0])
    return error


def columns_of(model: type[BaseModel]) -> frozenset[str]:
    """Return the allowed names of columns for the rows of a model."""
    return frozenset(name for names in _names(model).values() for name in names)


def required_of(model: type[BaseModel]) -> tuple[tuple[str, ...], ...]:
    """Return the names of each column that every row must have; a column may have several names."""
    return tuple(names for field, names in _names(model).items() if model.model_fields[field].is_required())


def _names(model: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    names = {}
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        choices = map(str, alias.choices) if isinstance(alias, AliasChoices) else ()
        names[name] = tuple(dict.fromkeys((name, *choices)))
    return names
