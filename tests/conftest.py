"""Options of the whole suite."""


def pytest_addoption(parser):
    parser.addoption("--board", choices=["emulated", "usb"], default="emulated", help="what tests/hil run on")
