"""What can go wrong on a Notecard and behind it, one class each; put into `Notecard.faults`.

A network that
is away is `Notecard.link.outages`, a card that loses power `Notecard.brown_out`, an I2C bus in trouble `I2CBus.faults`.
"""

from dataclasses import dataclass, field

from judder.emulator.notecard.card import Fault, Notecard
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
        at = next((start + 1 for start, code in _blocks(data) if code > 1), None)
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
        if request.sequence is None or not self.strikes_at(request):
            return lines
        line = lines[-1]
        digit = b"0" if line[-5:-4] != b"0" else b"1"
        return [*lines[:-1], line[:-5] + digit + line[-4:]]


@dataclass
class NotJson(OnReply):
    """A line that is no JSON in place of the reply."""

    def replies(self, request: Request, lines: list[bytes]) -> list[bytes]:
        return [b"~?!\r\n"] if self.strikes_at(request) else lines


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


def _blocks(stream: bytes) -> list[tuple[int, int]]:
    """Start and length code of each block of an encoded stream."""
    blocks = []
    at = 0
    while at < len(stream):
        code = stream[at] ^ 0x0A
        blocks.append((at, code))
        at += code
    return blocks


def _replaced(stream: bytes, at: int, value: int) -> bytes:
    return stream[:at] + bytes([value ^ 0x0A]) + stream[at + 1 :]
