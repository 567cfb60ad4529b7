"""What can go wrong on the bench, by name: `judder demo --fault NAME`.

Each strikes now and then, drawn from the seed, and passes, as in the field: a run can end with everything delivered, or
told lost by the board (power-cut).
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from judder.emulator.i2c import ADDRESS_NACK, DATA_NACK, Injected, Transfer
from judder.emulator.lis3dh import ADDRESS as LIS3DH_ADDRESS
from judder.emulator.notecard import faults as notecard_faults
from judder.emulator.power import PowerCuts

if TYPE_CHECKING:
    from judder.emulator.bench import Bench

STALL_NS = 40_000_000
OUTAGES_S = ((300, 1500), (3600, 3900), (7200, 7230))


def inject(name: str, bench: "Bench", seed: int = 0) -> None:
    """Make the fault called `name` happen on `bench` from now on."""
    if name in _ON_BENCH:
        _ON_BENCH[name](bench, random.Random(seed))
    else:
        bench.notecard.faults.append(notecard_faults.named(name))


def _nack(bench: "Bench", rng: random.Random) -> None:
    bench.bus.faults.append(lambda transfer: Injected(ADDRESS_NACK) if rng.random() < 0.002 else None)


def _eio(bench: "Bench", rng: random.Random) -> None:
    """In mid-burst: the FIFO has moved on, the host holds only a part."""

    def fault(transfer: Transfer) -> Injected | None:
        burst = transfer.address == LIS3DH_ADDRESS and transfer.read_length > 6
        if not burst or rng.random() >= 0.005:
            return None
        return Injected(DATA_NACK, consumed=True, delivered=rng.randrange(transfer.read_length))

    bench.bus.faults.append(fault)


def _stall(bench: "Bench", rng: random.Random) -> None:
    """40 ms in which the host does nothing: more than the FIFO holds."""

    def fault(transfer: Transfer) -> None:
        if transfer.address == LIS3DH_ADDRESS and rng.random() < 0.004:
            bench.clock.charge(STALL_NS)

    bench.bus.faults.append(fault)


def _offline(bench: "Bench", rng: random.Random) -> None:
    bench.notecard.link.outages += [(start * 10**9, end * 10**9) for start, end in OUTAGES_S]


def _power_cut(bench: "Bench", rng: random.Random) -> None:
    PowerCuts(bench, rng)


NO_DOWNLOAD = "stalled-download"
"""What needs a download, which the demo has none of when it has a fault."""
MEANINGS = {
    "nack": "a chip does not acknowledge its address",
    "eio": "a burst from the sensor's FIFO breaks off",
    "stall": "the board does nothing for 40 ms while samples pile up",
    "offline": "the Notecard has no network for a while",
    "power-cut": "the board's power fails in the flash's steps, in talks with the Notecard, while measuring or idle",
    "edge-impulse-down": "Edge Impulse answers 503 while windows arrive",
    **{name: kind.meaning for name, kind in notecard_faults.KINDS.items() if name != NO_DOWNLOAD},
}

_ON_BENCH: dict[str, Callable[["Bench", random.Random], None]] = {
    "nack": _nack,
    "eio": _eio,
    "stall": _stall,
    "offline": _offline,
    "power-cut": _power_cut,
}
