"""`python -m connectors` is `meterbridge`."""

from connectors.cli.plain import run_plain
from connectors.cli.terminal import prepare


def main() -> None:
    """Run the command `meterbridge`. Ctrl-C also ends it while its libraries are still being loaded."""
    prepare()
    run_plain()
    from connectors.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
