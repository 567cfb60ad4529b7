"""`judder emulate notecard`: an emulated Notecard for programs that we did not write, in real time."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from judder.emulator.clock import WallClock
from judder.emulator.i2c import ADDRESS_NACK, I2CBus, Injected, Transfer
from judder.emulator.notecard import ADDRESS, Notecard, NotecardI2C, faults, script
from judder.emulator.notecard.binary_store import MAXIMUM
from judder.emulator.notecard.card import DEVICE, VERSION
from judder.emulator.notecard.line import ECHO_DIGITS
from judder.emulator.notehub import Notehub
from judder.emulator.trace import json_lines, silent
from judder.emulator.transports import I2CSocket, Pty

NACK = "nack"
FAULTS = {name: kind.meaning for name, kind in faults.KINDS.items()} | {NACK: "the card does not acknowledge (I2C)"}


@dataclass(frozen=True)
class Card:
    """What kind of card it is, and what goes wrong with it. `crc` None: as its version had it."""

    device: str = DEVICE
    version: str = VERSION
    connect_delay_s: float = 1.0
    latency_s: float = 0.0
    binary_max: int = MAXIMUM
    crc: bool | None = None
    echo_digits: int = ECHO_DIGITS
    strict: bool = False
    faults: Sequence[str] = ()
    script: Path | None = None
    trace: Path | None = None


def notehub(routes: Sequence[str], *, chunked: bool) -> Notehub:
    """Routes from ALIAS=URL texts. Raises ValueError."""
    hub = Notehub(chunked=chunked)
    for text in routes:
        alias, equals, url = text.partition("=")
        if not (alias and equals):
            raise ValueError(f"--route {text}: give ALIAS=URL")
        hub.add_route(alias, url)
    return hub


@contextmanager
def notecard(kind: Card, hub: Notehub, *, i2c_socket: Path | None = None, link: Path | None = None) -> Iterator[Path]:
    """Run a card on a pseudo terminal, or on an I2C bus behind a socket; gives the path. Raises OSError, ValueError."""
    with ExitStack() as stack:
        clock = WallClock()
        trace = silent
        if kind.trace is not None:
            out = sys.stderr if str(kind.trace) == "-" else stack.enter_context(kind.trace.open("w", buffering=1))
            trace = json_lines(clock, out.write)
        card = Notecard(
            clock,
            hub.send,
            device=kind.device,
            version=kind.version,
            connect_delay_ns=round(kind.connect_delay_s * 1e9),
            latency_ns=round(kind.latency_s * 1e9),
            binary_maximum=kind.binary_max,
            checksums=kind.crc,
            echo_digits=kind.echo_digits,
            strict_input=kind.strict,
            trace=trace,
        )
        bus = I2CBus(clock, trace=trace)
        bus.attach(ADDRESS, NotecardI2C(card))
        for text in kind.faults:
            if text.partition(":")[0] == NACK and i2c_socket is not None:
                bus.faults.append(Nack(text))
            else:
                card.faults.append(faults.named(text))
        if kind.script is not None:
            script.run(script.load(kind.script), card)
        transport: Pty | I2CSocket = Pty(card, link) if i2c_socket is None else I2CSocket(bus, i2c_socket)
        with transport:
            yield transport.path


class Nack:
    """Each n-th transfer to the card is not acknowledged."""

    def __init__(self, text: str) -> None:
        _, _, every = text.partition(":")
        if every and not (every.isdecimal() and int(every)):
            raise ValueError(f"{text}: behind the colon goes a number n, for each n-th time")
        self.every = int(every or 50)
        self.transfers = 0

    def __call__(self, transfer: Transfer) -> Injected | None:
        self.transfers += transfer.address == ADDRESS
        return None if self.transfers % self.every else Injected(ADDRESS_NACK)
