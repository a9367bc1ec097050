"""Names of the extra group values; the window stores them, so that a changed `WINDOW_GROUP_BY` misreads no window."""

from schemas.ledger import Window


def names_of(window: Window, group_by: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the window's group values, one for each value.

    Early releases did not store the names. Their windows get the names of the policy if the number is equal. Otherwise
    the names are `group_1` and so on: the meaning of the values is unknown, and billing must not wait for it.
    """
    if window.group_names or not window.group:
        return window.group_names
    if len(group_by) == len(window.group):
        return group_by
    return tuple(f"group_{number}" for number in range(1, len(window.group) + 1))
