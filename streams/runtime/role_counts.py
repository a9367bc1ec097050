"""Counts that a module keeps for its process, apart for each role: several roles may share a process, each with metrics of its own."""

from collections import Counter, defaultdict
from contextvars import ContextVar
from typing import Final

#: The role that the current task belongs to; `""` where a process has no roles, or only one.
ROLE: Final[ContextVar[str]] = ContextVar("role", default="")


class RoleCounts:
    """Numbers by name, since the start of the process, for each role."""

    def __init__(self) -> None:
        self._by_role: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, name: str) -> int:
        """Count one more for the current task's role; the number now."""
        counts = self.of_role()
        counts[name] += 1
        return counts[name]

    def of_role(self) -> Counter[str]:
        """Return the numbers of the current task's role. The object goes on counting, so that it can be read outside
        the task.
        """
        return self._by_role[ROLE.get()]
