"""What can go wrong on a Notecard and behind it, one class each; put into `Notecard.faults`, or `named` by a text.

A network that is away is `Notecard.link.outages`, a card that loses power `Notecard.brown_out`, an I2C bus in trouble
`I2CBus.faults`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from judder.emulator.notecard.card import Notecard
from judder.emulator.notecard.fault import Fault
from judder.emulator.notecard.line import Request, seal
from judder.emulator.notecard.link import WebRequest, WebResponse

TUNNEL_HTML = b"<!DOCTYPE html><html><body><h1>You are about to visit a tunnel</h1></body></html>"


@dataclass(kw_only=True)
class Occasional(Fault):
    """A fault that happens now and then: each `every`-th occasion after `skip`, `times` in all (None: without end)."""

    times: int | None = 1
    skip: int = 0
    every: int = 1
    hits: int = field(default=0, init=False)

    def strikes(self) -> bool:
        """Count an occasion; True when it is one to spoil."""
        if self.skip or self.hits == self.times:
            self.skip = max(0, self.skip - 1)
            return False
        self.skip = self.every - 1
        self.hits += 1
        return True


@dataclass
class OnReply(Occasional):
    """A fault on the way of replies to `request`; to any request when that is empty."""

    request: str = ""

    def strikes_at(self, request: Request) -> bool:
        """As `strikes`, for the requests meant."""
        return self.request in ("", request.name) and self.strikes()


@dataclass
class LostReply(OnReply):
    """The request is carried out, its reply never reaches the host."""

    request: str = "web.post"

    def replies(self, request: Request, lines: list[bytes]) -> list[bytes]:
        return [] if self.strikes_at(request) else lines


@dataclass
class LostAnswer(Occasional):
    """The server's answer never reaches the card, which reports a timeout after the request's `seconds`."""

    def answer(self, request: WebRequest, response: WebResponse) -> WebResponse | None:
        return None if self.strikes() else response


@dataclass
class AnsweredInstead(Occasional):
    """Somebody on the way answers and the server never sees the request: 401, 403, 404, 503, a tunnel's page."""

    status: int = 503
    body: bytes = b""

    def intercept(self, request: WebRequest) -> WebResponse | None:
        return WebResponse(self.status, self.body) if self.strikes() else None


def tunnel_page(*, times: int | None = 1, skip: int = 0, every: int = 1) -> AnsweredInstead:
    """HTML with status 200 in place of the server's answer."""
    return AnsweredInstead(200, TUNNEL_HTML, times=times, skip=skip, every=every)


@dataclass
class BadStream(Occasional):
    """One flipped byte in a binary stream, the length of its last block: the card cannot decode it."""

    def stream(self, data: bytes) -> bytes:
        if not data or not self.strikes():
            return data
        last, code = _blocks(data)[-1]
        return _replaced(data, last, code + 1) if code < 0xFF else data[:-1]


@dataclass
class AlteredStream(Occasional):
    """One flipped bit in a binary stream that leaves it decodable: without an MD5 the card cannot notice."""

    def stream(self, data: bytes) -> bytes:
        at = next((start + 1 for start, code in _blocks(data) if code > 1 and start + 1 < len(data)), None)
        if at is None or not self.strikes():
            return data
        byte = data[at] ^ 0x0A
        return _replaced(data, at, byte ^ 1 or byte ^ 2)


@dataclass
class ShortStream(Occasional):
    """The last `missing` bytes of a binary stream are lost, its newline is not."""

    missing: int = 1

    def stream(self, data: bytes) -> bytes:
        return data[: -self.missing] if self.strikes() else data


@dataclass
class WrongCrc(OnReply):
    """The reply's checksum does not fit."""

    def replies(self, request: Request, lines: list[bytes]) -> list[bytes]:
        if request.sequence is None or not lines or not self.strikes_at(request):
            return lines
        line = lines[-1]
        digit = b"0" if line[-5:-4] != b"0" else b"1"
        return [*lines[:-1], line[:-5] + digit + line[-4:]]


@dataclass
class NotJson(OnReply):
    """A line that is no JSON in place of the reply."""

    def replies(self, request: Request, lines: list[bytes]) -> list[bytes]:
        return [b"~?!\r\n"] if lines and self.strikes_at(request) else lines


@dataclass
class Heartbeat(OnReply):
    """The card says that it is still at it before it replies."""

    request: str = "web.post"

    def replies(self, request: Request, lines: list[bytes]) -> list[bytes]:
        if not self.strikes_at(request):
            return lines
        return [seal({"err": "{heartbeat}", "status": "still at it"}, request.sequence), *lines]


@dataclass
class BrownOut(OnReply):
    """Power fails when the request arrives: it is never carried out, and everything in flight is gone."""

    request: str = "web.post"

    def swallows(self, card: Notecard, request: Request) -> bool:
        if not self.strikes_at(request):
            return False
        card.brown_out()
        return True


@dataclass
class Delayed(OnReply):
    """The card takes `seconds` longer; a client may have given up by then."""

    request: str = "web.post"
    seconds: float = 40.0  # note-python waits 30

    def delay_ns(self, request: Request) -> int:
        return round(self.seconds * 1e9) if self.strikes_at(request) else 0


@dataclass
class Disconnected(OnReply):
    """The session breaks during a web request: the server may have acted, no answer comes back."""

    request: str = "web.post"
    seconds: float = 30.0

    def swallows(self, card: Notecard, request: Request) -> bool:
        if self.strikes_at(request):
            start_ns = card.heard_ns + 1
            card.link.outages.append((start_ns, start_ns + round(self.seconds * 1e9)))
        return False


@dataclass
class FlippedByte(Occasional):
    """One bit of what the host sends arrives wrong."""

    def hears(self, data: bytes) -> bytes:
        if not data or not self.strikes():
            return data
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@dataclass
class DroppedByte(Occasional):
    """One byte of what the host sends never arrives."""

    def hears(self, data: bytes) -> bytes:
        if not data or not self.strikes():
            return data
        middle = len(data) // 2
        return data[:middle] + data[middle + 1 :]


@dataclass
class StalledDownload(Occasional):
    """A firmware download stops for `seconds`."""

    seconds: float = 600.0

    def stall_ns(self) -> int:
        return round(self.seconds * 1e9) if self.strikes() else 0


@dataclass
class EraseTimeout(Occasional):
    """The host's bootloader does not answer the command to erase its flash (reported at discuss.blues.com/t/3376)."""

    def refuses_erase(self) -> bool:
        return self.strikes()


@dataclass
class BadPage(Occasional):
    """A page of an outboard update reaches the host's flash with one wrong bit."""

    def page(self, data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:] if self.strikes() else data


@dataclass(frozen=True)
class Kind:
    """A fault that can be had by name: what makes one, each how many-th time it strikes by default, what it means."""

    make: Callable[..., Occasional]
    every: int
    meaning: str


KINDS = {
    "badbin": Kind(BadStream, 5, "a binary transfer cannot be decoded"),
    "altered": Kind(AlteredStream, 5, "a binary transfer has one wrong bit that only an MD5 shows"),
    "short": Kind(ShortStream, 5, "a binary transfer lacks its last byte"),
    "flipped": Kind(FlippedByte, 60, "a segment from the host has one wrong bit"),
    "dropped": Kind(DroppedByte, 60, "a segment from the host lacks one byte"),
    "wrong-crc": Kind(partial(WrongCrc, ""), 9, "a reply has a wrong checksum"),
    "not-json": Kind(partial(NotJson, ""), 9, "a reply is no JSON"),
    "heartbeat": Kind(Heartbeat, 5, "a web.post says first that it is still at it"),
    "delayed": Kind(Delayed, 5, "a web.post is answered 40 s late"),
    "lost-reply": Kind(LostReply, 5, "the answer to a successful post never arrives"),
    "lost-answer": Kind(LostAnswer, 5, "the server's answer never reaches the Notecard"),
    "disconnected": Kind(Disconnected, 5, "the session breaks during a web.post, for 30 s"),
    "brown-out": Kind(BrownOut, 5, "the Notecard's power fails when a web.post arrives"),
    "stalled-download": Kind(StalledDownload, 2, "a firmware download stops for ten minutes"),
    "html200": Kind(tunnel_page, 5, "a tunnel answers 200 with a web page of its own"),
    "server401": Kind(partial(AnsweredInstead, 401), 5, "somebody answers 401: wrong token"),
    "server404": Kind(partial(AnsweredInstead, 404), 5, "somebody answers 404: no such route"),
    "server500": Kind(partial(AnsweredInstead, 500), 5, "somebody answers 500"),
    "server503": Kind(partial(AnsweredInstead, 503), 5, "somebody answers 503: try again later"),
}


def named(text: str) -> Occasional:
    """The fault called NAME or NAME:EVERY. Raises ValueError for a text that is neither."""
    name = text.partition(":")[0]
    if name not in KINDS:
        raise ValueError(f"{name} is no fault of a Notecard: {', '.join(KINDS)}")
    kind = KINDS[name]
    return make(kind.make, text, kind.every)


def make(maker: Callable[..., Occasional], text: str, every: int) -> Occasional:
    """One that strikes each n-th time, as NAME:n says, or each `every`-th. Raises ValueError."""
    _, colon, given = text.partition(":")
    if colon and not (given.isdecimal() and int(given)):
        raise ValueError(f"{text}: behind the colon goes a number n, for each n-th time")
    n = int(given) if colon else every
    return maker(times=None, every=n, skip=n - 1)


def _blocks(stream: bytes) -> list[tuple[int, int]]:
    """Start and length code of each block of an encoded stream."""
    blocks = []
    at = 0
    while at < len(stream):
        code = stream[at] ^ 0x0A
        blocks.append((at, code))
        at += max(1, code)
    return blocks


def _replaced(stream: bytes, at: int, value: int) -> bytes:
    return stream[:at] + bytes([value ^ 0x0A]) + stream[at + 1 :]
