"""Options of the whole suite, and the fault matrix at its end."""

from hypothesis import settings

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
