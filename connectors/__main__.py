"""`python -m connectors` is `meterbridge`."""

from connectors.cli.plain import run_plain
from connectors.cli.terminal import prepare


def main() -> None:
    """The command `meterbridge`. A Ctrl-C while its libraries are still loaded ends it as well."""
    prepare()
    run_plain()
    from connectors.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
