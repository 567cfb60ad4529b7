"""A window as the host sees it: typed, in physical units, with everything its frame says."""

import struct
from dataclasses import dataclass
from datetime import datetime
from enum import IntFlag
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

STANDARD_GRAVITY = 9.80665  # m/s2 per g
SIGNED = 16  # flag of a frame
SIGNATURE_BYTES = 8

_FLAGS_AND_LENGTH = struct.Struct("<HI")
_FLAGS_AT = 6


class Flags(IntFlag):
    """What a window's user has to know before trusting it (docs/wire-format.md)."""

    GAP = 1
    """Samples are missing inside; `Window.gaps` says where and how many."""
    OVERRUN = 2
    """The sensor's FIFO ran over while the window was captured."""
    SATURATED = 4
    """At least one sample is at the end of the range."""
    SLOW_BUS = 8
    """The board had to fall back to 100 kHz and a lower rate."""


class FrameError(ValueError):
    """A body or frame that cannot be used. `status` is the HTTP status to answer with, `reason` one line.

    `boot` and `sequence` name the frame where its CRC is right and only its content is not.
    """

    def __init__(self, reason: str, status: int = 400, boot: int | None = None, sequence: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.boot = boot
        self.sequence = sequence


@dataclass(frozen=True, eq=False, repr=False)
class Window:
    """N consecutive samples at one output data rate, with no gap inside unless flagged. None means not known."""

    device: str
    """DeviceUID of the Notecard that sent it."""
    boot: int
    sequence: int
    firmware: str
    model: str
    settings: str
    """Hash of the settings that the firmware ran with."""
    label: str
    session: str
    acceleration: NDArray[np.float32]
    """Shape (n, 3): x, y, z in m/s2."""
    counts: NDArray[np.int16] | None
    """Shape (n, 3): the sensor's codes, right-justified. None for the article's stream, which has none."""
    interval_s: float | None
    """Time between samples as the firmware measured it against its crystal."""
    interval_sigma_s: float | None
    odr_hz: int | None
    """The nominal output data rate; real parts are a few percent off it."""
    started_at: datetime | None
    """UTC of the first sample."""
    started_at_uncertainty_s: float | None
    temperature_degc: float | None
    """Relative: the LIS3DH's own sensor is not calibrated."""
    full_scale_g: int | None
    sensitivity_mg: float | None
    """Milli-g per count."""
    mode: int | None
    """0 low power, 1 normal, 2 high resolution."""
    samples_lost: int | None
    gaps: tuple[tuple[int, int | None], ...]
    """(index of the first sample after the gap, samples lost in it; None: not known, or only as part of the next)."""
    flags: Flags
    trigger: int | None
    """Why it was sent: 0 the schedule, 1 the model's score, 2 level or kurtosis, 3 it came right before such a one, 4
    it was asked for (`request`)."""
    frame: bytes
    """The bytes that it was decoded from."""
    anomaly: float | None = None
    """Distance from what the board's model (`model`) was trained on. None: it was not scored, or the model has none."""
    class_name: str = ""
    """The most probable class; empty: it was not scored, or the model has none."""
    class_probability: float | None = None
    request: str = ""
    """Id of the request that it was captured for (`judder capture`)."""

    def __len__(self) -> int:
        return len(self.acceleration)

    def __repr__(self) -> str:
        rate = "unknown rate" if self.interval_s is None else f"{1 / self.interval_s:.2f} Hz"
        return f"<Window {self.boot:08x}:{self.sequence} of {self.device or '?'}: {len(self)} samples at {rate}>"

    @property
    def crc(self) -> int:
        """CRC-32 that ends the frame, were it not signed: tells a repeat from a conflict."""
        return unsigned_crc(self.frame)


def acceleration_m_s2(counts: NDArray[np.int16], sensitivity_mg: float) -> NDArray[np.float32]:
    """Counts to m/s2: count x sensitivity x standard gravity."""
    result: NDArray[np.float32] = counts * np.float32(sensitivity_mg / 1000 * STANDARD_GRAVITY)
    return result


def is_signed(frame: bytes) -> bool:
    """Whether a frame, of a window or not, carries a signature."""
    flags: int = _FLAGS_AND_LENGTH.unpack_from(frame, _FLAGS_AT)[0]
    return bool(flags & SIGNED)


def unsigned_crc(frame: bytes) -> int:
    """The frame's CRC-32, or what it would be without its signature: the same frame may come with different ones."""
    if not is_signed(frame):
        return int.from_bytes(frame[-4:], "little")
    flags, length = _FLAGS_AND_LENGTH.unpack_from(frame, _FLAGS_AT)
    head = frame[:_FLAGS_AT] + _FLAGS_AND_LENGTH.pack(flags & ~SIGNED, length - SIGNATURE_BYTES)
    return crc32(frame[len(head) : -SIGNATURE_BYTES - 4], crc32(head))
