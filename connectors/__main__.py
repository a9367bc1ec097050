"""`python -m connectors` is `meterbridge`."""

from connectors.cli import main

if __name__ == "__main__":
    main()
