"""A program that prints its arguments, environment, session and parent, or the hash of a text; it exits with 3."""

import os
import sys

if __name__ == "__main__":
    if sys.argv[1:] == ["hash"]:
        print(hash("a text"))
    else:
        print(sys.argv[1:], dict(os.environ), os.getsid(0), os.getppid(), sep="\n")
    sys.exit(3)
