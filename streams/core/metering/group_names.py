"""Names of the extra group values; the window stores them, so that a changed `WINDOW_GROUP_BY` misreads no window."""

from schemas.ledger import Window


def names_of(window: Window, group_by: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the window's group values, one for each value.

    Windows of releases before the names were stored take the policy's where their number fits. Otherwise the names are
    `group_1` and so on: the meaning of the values is unknown, and the money must not wait for it.
    """
    if window.group_names or not window.group:
        return window.group_names
    if len(group_by) == len(window.group):
        return group_by
    return tuple(f"group_{number}" for number in range(1, len(window.group) + 1))
