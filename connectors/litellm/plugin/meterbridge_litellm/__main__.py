"""`python -m meterbridge_litellm status | repost`, in the environment of the proxy.

`status` prints the contents of the ring's folder as JSON. `repost` posts the set-aside records again, after the cause
is fixed, for example a limit of the ingress or of a proxy before it. Both may run while a proxy runs. The exit code is
0 if no set-aside record is left, 1 if one is left, 2 if a setting is wrong.
"""

import json
import os
import secrets
import sys
from pathlib import Path

from meterbridge_litellm.aside import files_of, kept_in, records_of, wait_for_writer
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.http_clients import BlockingHttp
from meterbridge_litellm.posting import Poster
from meterbridge_litellm.settings import PluginSettings

_GROUP = 200
_CLAIMED = "again-"


def status(folder: Path) -> dict[str, int]:
    """Return the state of the folder: bytes of records that wait to be posted, and records that were set aside."""
    aside = kept_in(folder)
    return {
        "ring_bytes": sum(path.stat().st_size for path in folder.glob("*.seg")),
        "processes": len(list(folder.glob("*.lane"))),
        "aside_files": aside.files,
        "aside_records": aside.records,
        "aside_bytes": aside.size,
    }


def repost(folder: Path, poster: Poster) -> int:
    """Post the set-aside records; return how many of them the ingress has accepted. A file is deleted when all its
    records are accepted.

    A living process may write further records into its file. So the file is first renamed, and the process begins
    another file. Each rename uses a new name, because records of the same process may be left from an earlier run.
    """
    posted = 0
    for path in files_of(folder):
        claimed = path
        if not path.name.startswith(_CLAIMED):
            claimed = path.with_name(f"{_CLAIMED}{secrets.token_hex(6)}-{path.name}")
            path.rename(claimed)
        wait_for_writer(claimed)
        records, is_whole = list(records_of(claimed)), True
        for start in range(0, len(records), _GROUP):
            part = records[start : start + _GROUP]
            made = poster.post(part)
            is_whole = is_whole and not made.problem and not made.refused
            posted += 0 if made.problem else len(part) - len(made.refused)
        if is_whole:
            claimed.unlink()
    return posted


def main(command: str) -> int:
    """Run a command; return 2 if a setting is missing or wrong, or the folder does not exist."""
    try:
        settings = PluginSettings.of(os.environ)
    except ValueError as error:
        return _wrong(str(error))
    folder = Path(settings.ring_path)
    if not folder.is_dir():
        return _wrong(
            f"METERBRIDGE_RING_PATH is no folder: {folder}. Take the value of the proxy, which makes the folder"
        )
    status_report: dict[str, int] = {}
    if command == "repost":
        with BlockingHttp(settings.post_timeout) as http:
            status_report["posted"] = repost(folder, Poster(settings, Counts(), http))
    status_report |= status(folder)
    sys.stdout.write(json.dumps(status_report) + "\n")
    return int(status_report["aside_records"] > 0)


def _wrong(sentence: str) -> int:
    sys.stderr.write(f"meterbridge_litellm: {sentence}\n")
    return 2


if __name__ == "__main__":
    if sys.argv[1:] not in (["status"], ["repost"]):
        sys.exit("usage: python -m meterbridge_litellm status | repost")
    sys.exit(main(sys.argv[1]))
