"""`judder emulate notecard|swan`: an emulated Notecard, or a whole board, for other programs, in real time."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from judder.emulator.bench import Bench
from judder.emulator.clock import WallClock
from judder.emulator.desk import Desk
from judder.emulator.i2c import ADDRESS_NACK, I2CBus, Injected, Transfer
from judder.emulator.machine import Machine
from judder.emulator.notecard import ADDRESS, Notecard, NotecardI2C, faults, script
from judder.emulator.notecard.binary_store import MAXIMUM
from judder.emulator.notecard.card import DEVICE, VERSION
from judder.emulator.notecard.line import ECHO_DIGITS
from judder.emulator.notehub import Notehub
from judder.emulator.trace import json_lines, silent
from judder.emulator.transports import I2CSocket, Pty, Transport
from judder.emulator.usb import UsbPort

NACK = "nack"
NACK_EVERY = 50
ROUTE_TIMEOUT_S = 3600.0
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
    replay: bool = False
    faults: Sequence[str] = ()
    script: Path | None = None
    trace: Path | None = None


def notehub(routes: Sequence[str], *, chunked: bool) -> Notehub:
    """Routes from ALIAS=URL texts; the card's `seconds` decide how long an answer may take. Raises ValueError."""
    hub = Notehub(chunked=chunked, timeout_s=ROUTE_TIMEOUT_S)
    for text in routes:
        alias, equals, url = text.partition("=")
        if not (alias and equals):
            raise ValueError(f"--route {text}: give ALIAS=URL")
        hub.add_route(alias, url)
    return hub


@contextmanager
def notecard(
    kind: Card, hub: Notehub, *, i2c_socket: Path | None = None, link: Path | None = None
) -> Iterator[Transport]:
    """Run a card on a pseudo terminal, or on an I2C bus behind a socket. Raises OSError, ValueError."""
    with ExitStack() as stack:
        clock = WallClock()
        trace = silent
        if kind.trace is not None:
            out = sys.stderr if str(kind.trace) == "-" else kind.trace.open("w", buffering=1)
            stack.callback(_close, out)
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
            replay=kind.replay,
            trace=trace,
        )
        bus = I2CBus(clock, trace=trace)
        bus.attach(ADDRESS, NotecardI2C(card))
        for text in kind.faults:
            if text.partition(":")[0] == NACK:
                if i2c_socket is None:
                    raise ValueError(f"--fault {text}: only an I2C bus has it; use --i2c-socket")
                bus.faults.append(_nack(text))
            else:
                card.faults.append(faults.named(text))
        if kind.script is not None:
            script.run(script.load(kind.script), card)
        if i2c_socket is None:
            transport: Transport = Pty(card, link)
        else:
            transport = I2CSocket(bus, i2c_socket, when_idle=card.agenda.advance, when_left=card.new_host)
            card.send = transport.while_others_go_on(card.send)
        with transport:
            yield transport


def swan(link: Path, hub: Notehub, *, drive: Path | None, seed: int, on_line: Callable[[str], None]) -> Desk:
    """A Swan as it leaves its box, with a sensor on a machine and a Notecard; its port is `link`. Raises OSError."""
    usb = UsbPort(link)
    if drive is not None:
        drive.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        Machine.demo(),
        hub.send,
        seed=seed,
        usb=usb,
        drive=drive,
        clock=WallClock(),
        on_line=lambda device, line: on_line(line),
    )
    return Desk(bench.swan, usb)


def _close(out: IO[str]) -> None:
    """What could not be written has been told already."""
    if out is not sys.stderr:
        with suppress(OSError):
            out.close()


def _nack(text: str) -> Callable[[Transfer], Injected | None]:
    """Each n-th transfer to the card is not acknowledged."""
    occasions = faults.make(faults.Occasional, text, NACK_EVERY)
    return lambda transfer: Injected(ADDRESS_NACK) if transfer.address == ADDRESS and occasions.strikes() else None
