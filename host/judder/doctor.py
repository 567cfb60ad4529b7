"""`judder doctor`: what is wrong with a board, from the cable to the Notecard, and what to do next.

What the board can tell of itself it measures itself (device/node/selftest.py), in the words that the firmware prints
on its console for the same trouble.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from judder import usb
from judder.console import Console, Identity, RemoteError
from judder.deploy import START_FILE, check_board, firmware, plan
from judder.drive import ConsoleDrive

_FIGURE = re.compile(r"([a-z0-9_]+) = (.*)")
_SUMMARY = "selftest:"
_OWNER = """
import storage
print("computer" if storage.getmount("/").readonly else "firmware")
"""
_SAFE_MODE = """
import supervisor
reason = supervisor.runtime.safe_mode_reason
for name in dir(supervisor.SafeModeReason):
    if getattr(supervisor.SafeModeReason, name) == reason:
        print(name.split(".")[-1])
        break
"""


@dataclass(frozen=True)
class Finding:
    """One thing examined. `ok` None: a figure, neither good nor bad."""

    check: str
    ok: bool | None
    text: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def examine(port: str | None = None) -> Iterator[Finding]:
    """Examine the board at `port`, or the one there is; ends at what makes the rest impossible."""
    try:
        found = port or usb.find(usb.look())
    except usb.BoardError as error:
        yield Finding("usb", False, str(error))
        return
    yield Finding("usb", True, found)
    try:
        with Console(found) as console:
            yield Finding("console", True, "answers")
            if console.farewell:
                yield Finding("firmware", None, console.farewell)
            yield from _examine_board(console)
    except usb.BoardError as error:
        yield Finding("console", False, str(error))


def _examine_board(console: Console) -> Iterator[Finding]:
    identity = console.identity
    yield _runtime(identity)
    if identity.runtime == "circuitpython":
        reason = console.run(_SAFE_MODE).strip()
        yield _owner(console) if reason in ("", "NONE") else _safe_mode(reason)
    drive = ConsoleDrive(console)
    try:
        intended = plan(drive, firmware())
    except usb.BoardError as error:
        yield Finding("drive", False, str(error))
        return
    yield from (Finding("drive", None, remark) for remark in intended.remarks)
    if intended.slots:
        missing = ", ".join(intended.slots)
        yield Finding("drive", None, f"{missing}: not there, and without them no updates by file: judder deploy")
    if START_FILE in intended.kept or "selftest.py" not in drive.names("node"):
        yield Finding("firmware", False, "judder's firmware is not on the board: judder deploy")
        return
    yield _firmware(len(intended.changed) + len(intended.kept) + len(intended.defaults))
    yield from _selftest(console)


def _runtime(identity: Identity) -> Finding:
    version = ".".join(map(str, identity.version))
    name = {"circuitpython": "CircuitPython", "micropython": "MicroPython"}.get(identity.runtime, identity.runtime)
    try:
        check_board(identity)
    except usb.BoardError as error:
        return Finding("runtime", False, str(error))
    return Finding("runtime", True, f"{name} {version} on {identity.board or identity.machine}")


def _safe_mode(reason: str) -> Finding:
    return Finding(
        "safe mode",
        False,
        f"CircuitPython is in safe mode ({reason}) and runs no program: press RESET once "
        "(docs/operations.md, The board)",
    )


def _owner(console: Console) -> Finding:
    if console.run(_OWNER).strip() == "firmware":
        return Finding("drive", True, "belongs to the firmware (normal mode)")
    return Finding(
        "drive",
        False,
        "belongs to this computer (a new board, or service mode): nothing can be kept on it while it runs; judder "
        "deploy ends that; or delete its file `service`, if it has one, and press RESET without USR",
    )


def _firmware(different: int) -> Finding:
    if different:
        return Finding("firmware", False, f"files that differ from those here: {different}: judder deploy")
    return Finding("firmware", True, "as here")


def _selftest(console: Console) -> Iterator[Finding]:
    try:
        lines = console.run("import main\nmain.selftest()").splitlines()
    except RemoteError as error:
        yield Finding("selftest", False, f"{error}: judder deploy, then judder doctor")
        return
    for line in lines:
        figure = _FIGURE.fullmatch(line)
        if figure is not None:
            yield Finding(figure[1].replace("_", " "), None, figure[2].strip())
        elif line and not line.startswith(_SUMMARY):
            yield Finding("trouble", False, line)
