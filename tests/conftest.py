"""Options of the whole suite."""


def pytest_addoption(parser):
    parser.addoption("--board", choices=["emulated", "usb"], default="emulated", help="what tests/hil run on")


def pytest_terminal_summary(terminalreporter):
    """The fault matrix, if it was run."""
    rows = [
        dict(report.user_properties)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call" and dict(report.user_properties).get("figures")
    ]
    if not rows:
        return
    terminalreporter.section("fault matrix (emulated)")
    head = ("fault", "runs", "captured", "stored", "delivered", "twice", "reported", "tail", "unreported")
    terminalreporter.write_line(f"{head[0]:48}" + "".join(f"{name:>11}" for name in head[1:]))
    for row in rows:
        one = row["figures"]
        numbers = (
            one.runs,
            one.captured,
            one.stored,
            one.delivered,
            one.twice,
            sum(one.reported.values()),
            one.tail,
            one.unreported,
        )
        terminalreporter.write_line(f"{row['fault']:48}" + "".join(f"{number:>11}" for number in numbers))
