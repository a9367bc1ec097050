"""A role that fails repeatedly is restarted after longer and longer pauses, and after a stable hour at once."""

from connectors.processes.restart_pace import RestartPace


def test_the_pause_between_two_starts_doubles_from_half_a_second_to_ten() -> None:
    pace, now_s, waits = RestartPace(100.0), 100.0, []
    for _ in range(7):
        waits.append(pace.wait_s(now_s))
        now_s += waits[-1]
        pace.restarted(now_s)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_long_run_resets_the_pause() -> None:
    pace = RestartPace(0.0)
    for start_s in (1.0, 3.0, 6.0):
        pace.restarted(start_s)
    assert (pace.wait_s(7.5), pace.wait_s(11.0)) == (2.5, 0.0)
    pace.restarted(11.0)
    assert pace.wait_s(71.5) == 0.0
    pace.restarted(71.5)
    assert pace.wait_s(71.5) == 1.0
