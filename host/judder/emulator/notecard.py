"""Emulated Notecard: its protocol without I/O, and the I2C front.

Documents: what note-c and note-python expect of a card, dev.blues.io (serial-over-I2C protocol, Notecard interfaces).
Where these are silent the behaviour is assumed.

The Notecard does one thing after the other. A request is carried out when its newline arrives, but its reply exists
only when the card would have finished (`Message.ready_at_ns`), after those of the requests before. A front hands out
one message after the other.

Unverified against hardware: error texts before their {tokens}, replay of a repeated request, what an offset that does
not match or an empty store answers, that the store outlives web.post, how long requests take.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import judder.emulator.notecard_web  # noqa: F401  # makes web.* known
from judder.emulator.binary_store import MAXIMUM, BinaryStore
from judder.emulator.clock import Clock
from judder.emulator.link import CONNECT_NS, Link, Sender, WebRequest, WebResponse
from judder.emulator.notecard_request import OBJECT_LIMIT, CardError, Fields, Request, parse, seal
from judder.emulator.notecard_vocabulary import entry

__all__ = ["ADDRESS", "Fault", "Message", "Notecard", "NotecardI2C", "Request", "Sender", "WebRequest", "WebResponse"]

ADDRESS = 0x17
DEVICE = "dev:864475040000001"
VERSION = "notecard-8.1.3.17074"
REQUEST_NS = 5_000_000  # assumed; shorter than note-python's pause before it asks for the reply
LATENCY_NS = 300_000_000  # a web request's way to the server and back
BOOT_NS = 1_000_000_000  # assumed: how long a card that lost power stays off the bus
SILENCE_NS = 5_000_000_000  # assumed: a binary stream that stops for so long is given up
AVAILABLE_LIMIT = 253  # note-go:notecard/i2c-unix.go refuses more


class Fault:
    """Something that can go wrong, in one of five places; as it stands nothing does."""

    def swallows(self, card: "Notecard", request: Request) -> bool:
        """True: the request is neither carried out nor answered."""
        return False

    def stream(self, data: bytes) -> bytes:
        """The encoded bytes of a binary stream as they reach the card, without the newline."""
        return data

    def intercept(self, request: WebRequest) -> WebResponse | None:
        """An answer given before the server is reached."""
        return None

    def answer(self, request: WebRequest, response: WebResponse) -> WebResponse | None:
        """The server's answer as it reaches the card; None when it never does."""
        return response

    def replies(self, request: Request, lines: list[bytes]) -> list[bytes]:
        """The lines that reach the host for a request: the reply is the last, any before it come at once."""
        return lines


@dataclass(eq=False, slots=True)
class Message:
    """Bytes for the host, there from `ready_at_ns` on; the first `taken` have been read."""

    data: bytes
    ready_at_ns: int
    taken: int = 0


class Notecard:
    """The card. Everything a test may set or know about it is a public attribute.

    `hub` is what an earlier hub.set left behind: with mode continuous the card connects by itself.
    `replay`: a request with the sequence and crc of the one before is a repetition and only its reply is given again.
    `checksums`: without them it is firmware from before June 2023.
    """

    def __init__(
        self,
        clock: Clock,
        send: Sender,
        *,
        device: str = DEVICE,
        version: str = VERSION,
        hub: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        binary_maximum: int = MAXIMUM,
        connect_delay_ns: int = CONNECT_NS,
        latency_ns: int = LATENCY_NS,
        request_ns: int = REQUEST_NS,
        replay: bool = True,
        checksums: bool = True,
    ) -> None:
        self.clock = clock
        self.send = send
        self.device = device
        self.version = version
        self.hub: Fields = dict(hub or {})
        self.environment = dict(environment or {})
        self.link = Link(clock, connect_delay_ns, mode=self.hub.get("mode", "off"))
        self.store = BinaryStore(binary_maximum, self._distort)
        self.latency_ns = latency_ns
        self.request_ns = request_ns
        self.replay = replay
        self.checksums = checksums
        self.faults: list[Fault] = []
        self.dfu: Fields = {}
        self.attn = ""
        self.log: deque[str] = deque(maxlen=100)
        # ground truth
        self.executed: Counter[str] = Counter()  # by request
        self.replayed: Counter[str] = Counter()  # repetitions that were not executed
        self.posts = 0  # web requests sent, whatever became of their answers
        self.bytes_posted = 0
        self.bytes_in = 0
        self.restarts = 0
        self.unknown_members: deque[str] = deque(maxlen=100)  # "request: member" ignored, being in no documentation
        self.fragments: dict[tuple[str, str], bytes] = {}  # uploads of which a part is still missing, by route and name
        self._power_up()

    def _power_up(self) -> None:
        self.fragments.clear()
        self._heard_ns = self._up_at_ns = self.clock.now_ns()
        self._busy_until_ns = self._heard_ns
        self._line = bytearray()
        self._messages: deque[Message] = deque()
        self._previous: Request | None = None
        self._reply = b""
        self._reply_message: Message | None = None
        self._after_reply = b""

    # --- the wire -----------------------------------------------------------------------------------------------

    def feed(self, data: bytes, lasting_ns: int = 0) -> None:
        """Take bytes from the host, the last of which arrives `lasting_ns` from now."""
        heard_ns = self.clock.now_ns() + lasting_ns
        if self.store.receiving and heard_ns - self._heard_ns > SILENCE_NS:
            self.store.end()
        self._heard_ns = heard_ns
        self.bytes_in += len(data)
        while data:
            data = self.store.feed(data) if self.store.receiving else self._feed_line(data)

    def available(self) -> int:
        """Unread bytes of the current message; 0 before its time."""
        if not self._messages or self._messages[0].ready_at_ns > self.clock.now_ns():
            return 0
        return len(self._messages[0].data) - self._messages[0].taken

    def read(self, length: int) -> bytes:
        """Up to `length` bytes of the current message, never of the next."""
        if not self.available():
            return b""
        message = self._messages[0]
        data = message.data[message.taken : message.taken + length]
        message.taken += len(data)
        if message.taken == len(message.data):
            self._messages.popleft()
        return data

    def brown_out(self) -> None:
        """Lose power for an instant, and be off the bus until booted: only what hub.set said survives."""
        self.restart()
        self._up_at_ns = self.clock.now_ns() + BOOT_NS

    def restart(self) -> None:
        """Forget what was being said, the binary store, session and time."""
        self.restarts += 1
        self.link.restart()
        self.store.clear()
        self._power_up()

    def up(self) -> bool:
        """Whether the card has booted."""
        return self.clock.now_ns() >= self._up_at_ns

    def _feed_line(self, data: bytes) -> bytes:
        end = data.find(b"\n")
        if len(self._line) <= OBJECT_LIMIT:  # more is an error already and need not be kept
            self._line += data if end < 0 else data[:end]
        if end < 0:
            return b""
        line = bytes(self._line)
        self._line.clear()
        self._execute(line)
        return data[end + 1 :]

    # --- requests and replies -----------------------------------------------------------------------------------

    def _execute(self, line: bytes) -> None:
        self._busy_until_ns = max(self._busy_until_ns, self._heard_ns) + self.request_ns
        self._after_reply = b""
        if not line.strip():
            self._queue(b"\r\n")
            return
        try:
            request = self._parse(line)
        except CardError as error:
            self._queue(seal({"err": str(error)}, None))
            return
        if any(fault.swallows(self, request) for fault in self.faults):
            return
        if not self._is_repetition(request):
            self._reply = self._carry_out(request)
            self._previous = request if request.intact else None
        elif self._reply_waits():
            return
        if request.wants_reply:
            self._hand_out(request)

    def _parse(self, line: bytes) -> Request:
        if len(line) > OBJECT_LIMIT:
            raise CardError(f"request exceeds {OBJECT_LIMIT} bytes {{too-big}}")
        return parse(line, checksums=self.checksums)

    def _is_repetition(self, request: Request) -> bool:
        if not self.replay or self._previous is None or request.crc is None or request.crc != self._previous.crc:
            return False
        if request.name in ("card.binary.put", "card.binary.get"):  # the reply alone would leave the stream out
            return False
        self.replayed[request.name] += 1
        return True

    def _reply_waits(self) -> bool:
        """The host asked again before it took the first reply, which then serves for both."""
        message = self._reply_message
        return message is not None and message in self._messages and not message.taken

    def _carry_out(self, request: Request) -> bytes:
        try:
            reply = self._answer(request)
        except CardError as error:
            reply = {"err": str(error), **error.also}
        if "id" in request.fields:
            reply["id"] = request.fields["id"]
        try:
            return seal(reply, request.sequence)
        except CardError as error:
            return seal({"err": str(error)}, request.sequence)

    def _answer(self, request: Request) -> Fields:
        if not request.intact:
            raise CardError("crc does not match the request {io}")
        known = entry(self, request.name)
        known.check(request.fields)
        self.unknown_members.extend(f"{request.name}: {member}" for member in known.unknown(request.fields))
        self.executed[request.name] += 1
        return known.handler(self, request.fields)

    def _hand_out(self, request: Request) -> None:
        lines = [self._reply]
        for fault in self.faults:
            lines = fault.replies(request, lines)
        for line in lines[:-1]:
            self._messages.append(Message(line, self._heard_ns + self.request_ns))
        self._reply_message = self._queue(lines[-1]) if lines else None
        if self._after_reply:
            self._queue(self._after_reply)

    def _queue(self, data: bytes) -> Message:
        message = Message(data, self._busy_until_ns)
        self._messages.append(message)
        return message

    # --- what the vocabulary works with -------------------------------------------------------------------------

    @property
    def version_numbers(self) -> tuple[int, ...]:
        """(5, 3, 1, 123) of notecard-5.3.1.123."""
        return tuple(int(part) for part in self.version.replace("-", ".").split(".") if part.isdigit())

    def online(self) -> bool:
        """Whether web requests are possible at the time of the request being carried out."""
        return self.link.online(self._heard_ns)

    def time_s(self) -> int:
        """UTC in whole seconds at the time of the request being carried out."""
        return (self.clock.utc_ns() - self.clock.now_ns() + self._heard_ns) // 1_000_000_000

    def send_after_reply(self, data: bytes) -> None:
        """A message of its own behind the reply: clients read on while something is available."""
        self._after_reply = data

    def exchange(self, request: WebRequest, timeout_ns: int) -> WebResponse:
        """Send a web request. Raises CardError when no answer comes in time; the server may have acted all the same."""
        response = self._response(request)
        in_time = self.latency_ns <= timeout_ns and self.link.online(self._heard_ns + self.latency_ns)
        if response is None or not in_time:
            self._busy_until_ns += timeout_ns
            raise CardError("no response in time {timeout}")
        self._busy_until_ns += self.latency_ns
        return response

    def _response(self, request: WebRequest) -> WebResponse | None:
        for fault in self.faults:
            instead = fault.intercept(request)
            if instead is not None:
                return instead
        self.posts += 1
        self.bytes_posted += len(request.body)
        response: WebResponse | None = self.send(request)
        for fault in self.faults:
            if response is not None:
                response = fault.answer(request, response)
        return response

    def _distort(self, stream: bytes) -> bytes:
        for fault in self.faults:
            stream = fault.stream(stream)
        return stream


class NotecardI2C:
    """The card as a chip on the bus: serial over I2C.

    A write is `[length][bytes]`. `[0][n]` announces a read of n bytes and stays announced until the next write; the
    read gives `[available after it][n][n bytes]`, with n = 0 a mere query. Write and read may be one transfer or two.
    Malformed writes are refused and change nothing.
    """

    def __init__(self, card: Notecard) -> None:
        self.card = card
        self._announced = 0

    def write(self, data: bytes, byte_ns: int) -> bool:
        if not self.card.up():
            return False
        length = data[0]
        if length == 0 and len(data) == 2:
            self._announced = data[1]
            return True
        if length == 0 or length != len(data) - 1:
            return False
        self._announced = 0
        self.card.feed(data[1:], len(data) * byte_ns)
        return True

    def read(self, length: int, byte_ns: int) -> bytes:
        if not self.card.up():
            return b"\xff" * length  # what an idle bus reads as
        # a read that ends a message shows 0 although the next may wait: clients go on reading while it is not 0
        left = self.card.available()
        data = self.card.read(self._announced)
        header = bytes((min(left - len(data), AVAILABLE_LIMIT), len(data)))
        return (header + data).ljust(length, b"\0")[:length]
