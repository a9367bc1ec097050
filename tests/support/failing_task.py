"""`meterbridge` with a background task that fails at once: `python -m tests.support.failing_task worker ...`."""

from typing import NoReturn


async def log_partitions(*_: object) -> NoReturn:
    """Simulates a bug of ours in the task that logs which partitions a worker has."""
    raise ValueError("planted")


if __name__ == "__main__":
    from connectors.cli.main import main
    from connectors.processes import worker

    vars(worker)["log_partitions"] = log_partitions
    main()
