"""Options of the whole suite, and the fault matrix at its end."""

import pytest
from hypothesis import settings
from tests.loop import Loop

from judder.config import Config
from judder.server import background

settings.register_profile("judder", deadline=None)  # how long an example takes says more about the machine
settings.load_profile("judder")


def pytest_addoption(parser):
    parser.addoption("--board", choices=["emulated", "usb"], default="emulated", help="what tests/hil run on")


def pytest_terminal_summary(terminalreporter):
    """The fault matrix, if it was run."""
    passed = [dict(report.user_properties) for report in terminalreporter.getreports("passed")]
    rows = [row for row in passed if "fault" in row]
    if not rows:
        return
    terminalreporter.section("fault matrix (emulated)")
    names = [name for name in rows[0] if name != "fault"]
    width = max(len(row["fault"]) for row in rows)
    terminalreporter.write_line("fault".ljust(width) + "".join(f"{name:>11}" for name in names))
    for row in rows:
        terminalreporter.write_line(row["fault"].ljust(width) + "".join(f"{row[name]:>11}" for name in names))


@pytest.fixture
def loop(tmp_path):
    """Makes a tests.loop.Loop; its bench is not yet running."""
    with background(Config(data=tmp_path / "data", port=0)) as server:
        yield lambda **kwargs: Loop(server, **kwargs)
