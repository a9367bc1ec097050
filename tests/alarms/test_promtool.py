"""The tests of alarms are never skipped: promtool is installed, fetched, or its absence makes them fail."""

from pathlib import Path

import pytest

from tests.support import prometheus

#: It knows no package before `update`, like a new machine.
APT = """#!/bin/sh
case $1 in
  update) touch "$STATE/updated" ;;
  download) test -e "$STATE/updated" && echo package > prometheus_1_amd64.deb || { echo "no package"; exit 100; } ;;
esac
"""
DPKG = '#!/bin/sh\nmkdir -p "$3/usr/bin" && echo tool > "$3/usr/bin/promtool"\n'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no tools except the shell's; tests fill its `bin`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(prometheus, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(prometheus.shutil, "which", lambda name: existing(tmp_path / "bin" / name))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("STATE", str(tmp_path))
    return tmp_path


def existing(path: Path) -> str | None:
    return str(path) if path.exists() else None


def has(machine: Path, name: str, text: str) -> None:
    (machine / "bin" / name).write_text(text)
    (machine / "bin" / name).chmod(0o755)


def test_promtool_is_fetched_once_after_an_update_if_there_is_no_package_list(machine: Path) -> None:
    has(machine, "apt-get", APT)
    has(machine, "dpkg", DPKG)
    there = prometheus.program("promtool")
    assert Path(there).read_text() == "tool\n"
    has(machine, "apt-get", "#!/bin/sh\nexit 1\n")
    assert prometheus.program("promtool") == there
    assert [path.name for path in (machine / "cache").iterdir()] == ["debian"]


def test_an_installed_promtool_is_used(machine: Path) -> None:
    has(machine, "promtool", "")
    assert prometheus.program("promtool") == str(machine / "bin" / "promtool")


def test_without_promtool_and_package_the_error_says_what_to_do(machine: Path) -> None:
    with pytest.raises(RuntimeError, match="put promtool and prometheus on the PATH"):
        prometheus.program("promtool")
    has(machine, "apt-get", "#!/bin/sh\necho 'Unable to locate package'; exit 100\n")
    has(machine, "dpkg", DPKG)
    with pytest.raises(RuntimeError, match=r"(?s)install Debian's package prometheus.*Unable to locate"):
        prometheus.program("promtool")
