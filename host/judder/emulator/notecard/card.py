"""The Notecard's protocol core: bytes in, messages out, no I/O; clock and HTTP sender come from outside.

Documents: what note-c and note-python expect of a card, dev.blues.io (Notecard interfaces). Where these are silent
the behaviour is assumed.

The Notecard does one thing after the other. A request is carried out when its newline arrives, but its reply exists
only when the card would have finished (`Message.ready_at_ns`), after those of the requests before. A front hands out
one message after the other. What time alone brings is on the `agenda`, and happens before the next request.

Unverified against hardware: error texts before their {tokens}, replay of a repeated request, what an offset that does
not match or an empty store answers, that the store outlives web.post, how long requests take.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import judder.emulator.notecard.requests  # noqa: F401  # makes them known
from judder.emulator.clock import Clock
from judder.emulator.notecard.agenda import Agenda
from judder.emulator.notecard.attn import Attn
from judder.emulator.notecard.binary_store import MAXIMUM, BinaryStore
from judder.emulator.notecard.environment import Environment
from judder.emulator.notecard.fault import Fault
from judder.emulator.notecard.line import ECHO_DIGITS, OBJECT_LIMIT, CardError, Fields, Request, parse, seal
from judder.emulator.notecard.link import CONNECT_NS, NEVER, Link, Sender, WebRequest, WebResponse
from judder.emulator.notecard.notefiles import Notefiles
from judder.emulator.notecard.outboard import Outboard
from judder.emulator.notecard.twin import Twin
from judder.emulator.notecard.update import Update
from judder.emulator.notecard.vocabulary import entry
from judder.emulator.trace import Trace, silent

DEVICE = "dev:864475040000001"
VERSION = "notecard-8.1.3.17074"
CHECKSUMS_SINCE = (5, 1, 1)  # assumed: the first release after note-c PR 74 (June 2023)
REQUEST_NS = 5_000_000  # assumed; shorter than note-python's pause before it asks for the reply
LATENCY_NS = 300_000_000  # a web request's way to the server and back
BOOT_NS = 1_000_000_000  # assumed: how long a card that lost power stays off the bus
SILENCE_NS = 5_000_000_000  # assumed: a binary stream that stops for so long is given up
REPETITION_NS = 120_000_000_000  # assumed: longer than any client waits before it asks again
MESSAGES = 1000
QUEUED = 100
INPUT_BUFFER = 1500  # bytes (dev.blues.io, Notecard interfaces)
INPUT_NS_PER_BYTE = 1_000_000  # 250 ms for each 250 bytes: same page


@dataclass(eq=False, slots=True)
class Message:
    """Bytes for the host, there from `ready_at_ns` on; the first `taken` have been read."""

    data: bytes
    ready_at_ns: int
    taken: int = 0


@dataclass(frozen=True)
class Queued:
    """A web request that waits for a session; its response goes to `note` in the Notefile `file`, if there is one."""

    request: WebRequest
    file: str
    note: str
    since_ns: int


class Notecard:
    """The card. Everything a test may set or know about it is a public attribute.

    `hub` is what an earlier hub.set left behind: with mode continuous the card connects by itself. `environment` is
    what an earlier sync brought.
    `replay`: a request with the sequence and crc of the one before is a repetition and only its reply is given again.
    `checksums`: by default the version decides; `echo_digits`: how much of the sequence number comes back.
    `strict_input`: requests sent faster than documented overflow the input buffer and lose bytes.
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
        checksums: bool | None = None,
        echo_digits: int = ECHO_DIGITS,
        strict_input: bool = False,
        trace: Trace = silent,
    ) -> None:
        self.clock = clock
        self.send = send
        self.device = device
        self.version = version
        self.hub: Fields = dict(hub or {})
        self.latency_ns = latency_ns
        self.request_ns = request_ns
        self.replay = replay
        self.checksums = checksums
        self.echo_digits = echo_digits
        self.strict_input = strict_input
        self.trace = trace
        self.faults: list[Fault] = []
        self.agenda = Agenda(self)
        self.link = Link(self.agenda.now_ns, connect_delay_ns, mode=self.hub.get("mode", "off"))
        self.store = BinaryStore(binary_maximum, self._receive_stream)
        self.notefiles = Notefiles()
        self.environment = Environment(dict(environment or {}))
        self.twin = Twin(self.agenda.now_ns)
        self.twin.environment = dict(environment or {})
        self.attn = Attn()
        self.update = Update()
        self.outboard = Outboard(self)
        self.mode_before_dfu = "periodic"
        self.host_version: object = None
        self.signals: deque[Fields] = deque()
        self.queued: deque[Queued] = deque()
        self.log: deque[str] = deque(maxlen=100)
        # ground truth
        self.executed: Counter[str] = Counter()  # by request
        self.replayed: Counter[str] = Counter()  # repetitions that were not executed
        self.posts = 0  # web requests sent, whatever became of their answers
        self.bytes_posted = 0
        self.bytes_in = 0
        self.bugs: list[Exception] = []  # requests that the emulator itself failed at
        self.bytes_overflowed = 0  # lost for want of pauses (strict_input)
        self.restarts = 0
        self.unknown_members: deque[str] = deque(maxlen=100)  # "request: member" ignored, being in no documentation
        self.fragments: dict[tuple[str, str], bytes] = {}  # uploads of which a part is still missing, by route and name
        self._sending = False
        self._power_up()

    def _power_up(self) -> None:
        self.signals.clear()
        self._heard_ns = self._up_at_ns = self._drained_ns = self.agenda.now_ns()
        self._busy_until_ns = self._heard_ns
        self._line = bytearray()
        self._messages: deque[Message] = deque(maxlen=MESSAGES)  # a host that never reads loses the oldest
        self._previous: Request | None = None
        self._previous_ns = 0
        self._reply = b""
        self._reply_message: Message | None = None
        self._after_reply = b""
        self._waiting = b""  # what came while a web request was being sent

    # --- the wire -----------------------------------------------------------------------------------------------

    def feed(self, data: bytes, lasting_ns: int = 0) -> None:
        """Take bytes from the host, the last of which arrives `lasting_ns` from now."""
        self.agenda.advance()
        if not self.up():
            return
        if self._sending:
            self._waiting += data
            return
        data, self._waiting = self._waiting + data, b""
        heard_ns = self.clock.now_ns() + lasting_ns
        if self.store.receiving and heard_ns - self._heard_ns > SILENCE_NS:
            self.store.end()
        self._heard_ns = heard_ns
        self.bytes_in += len(data)
        for fault in self.faults:
            data = fault.hears(data)
        if self.strict_input and not self.store.receiving:
            data = self._admit(data)
        while data:
            data = self.store.feed(data) if self.store.receiving else self._feed_line(data)

    def available(self) -> int:
        """Unread bytes of the current message; 0 before its time."""
        if self._sending:
            return 0
        if self._waiting:
            self.feed(b"")
        self.agenda.advance()
        if not self._messages or not self.up() or self._messages[0].ready_at_ns > self.clock.now_ns():
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
        """Lose power for an instant, and be deaf until booted: only what is in flash survives."""
        self.restart()
        self._up_at_ns = self.agenda.now_ns() + BOOT_NS

    def restart(self) -> None:
        """Forget what was being said, the binary store, session and time; Notefiles and settings stay."""
        self.restarts += 1
        self.link.restart()
        self.store.clear()
        self.attn = Attn(off=self.attn.off)
        self._power_up()
        self.trace("restart")
        self.update.restart(self.agenda.now_ns())
        self.outboard.restart(self.agenda.now_ns())

    def restore(self, *, settings: bool, at_notehub: bool) -> None:
        """Back to an empty file system; with `settings` also to factory settings; restarts."""
        self.notefiles = Notefiles()
        self.queued.clear()
        if settings:
            self.hub.clear()
            self.environment = Environment(dict(self.twin.environment))
            self.link.mode = "off"  # until there is a product again
            self.link.period_ns = NEVER
        if at_notehub:
            self.twin = Twin(self.agenda.now_ns)
        self.restart()

    def up(self) -> bool:
        """Whether the card has booted."""
        return self.clock.now_ns() >= self._up_at_ns

    def _admit(self, data: bytes) -> bytes:
        """What still fits into the input buffer, which empties at the documented rate."""
        waiting = max(0, self._drained_ns - self._heard_ns) // INPUT_NS_PER_BYTE
        admitted = data[: INPUT_BUFFER - waiting]
        self._drained_ns = max(self._drained_ns, self._heard_ns) + len(admitted) * INPUT_NS_PER_BYTE
        self.bytes_overflowed += len(data) - len(admitted)
        return admitted

    def _feed_line(self, data: bytes) -> bytes:
        end = data.find(b"\n")
        if len(self._line) <= OBJECT_LIMIT:  # more is an error already and need not be kept
            self._line += data if end < 0 else data[:end]
        if end < 0:
            return b""
        line = bytes(self._line)
        self._line.clear()
        self._drained_ns = self._heard_ns
        self._execute(line)
        return data[end + 1 :]

    # --- requests and replies -----------------------------------------------------------------------------------

    def _execute(self, line: bytes) -> None:
        self.agenda.advance(self._heard_ns)
        self._busy_until_ns = max(self._busy_until_ns, self._heard_ns) + self.request_ns
        self._after_reply = b""
        if not line.strip():
            self._queue(b"\r\n")
            return
        self.trace("request", line=line.decode(errors="replace"))
        try:
            request = self._parse(line)
        except CardError as error:
            self._queue(seal({"err": str(error)}, None))
            return
        self.attn.heard(self._heard_ns)
        if any(fault.swallows(self, request) for fault in self.faults):
            return
        if not self._is_repetition(request):
            self._reply = self._carry_out(request)
            self._previous = request if request.intact else None
            self._previous_ns = self._heard_ns
        elif self._reply_waits():
            return
        if request.wants_reply:
            self._hand_out(request)

    def _parse(self, line: bytes) -> Request:
        if len(line) > OBJECT_LIMIT:
            raise CardError(f"request exceeds {OBJECT_LIMIT} bytes {{too-big}}")
        checksums = self.version_numbers >= CHECKSUMS_SINCE if self.checksums is None else self.checksums
        return parse(line, checksums=checksums, echo_digits=self.echo_digits)

    def _is_repetition(self, request: Request) -> bool:
        if not self.replay or self._previous is None or request.crc is None or request.crc != self._previous.crc:
            return False
        if self._heard_ns - self._previous_ns > REPETITION_NS:
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
        except Exception as error:  # noqa: BLE001  # a fault of ours must not leave the host without a reply
            self.bugs.append(error)
            self.trace("bug", request=request.name, error=repr(error))
            reply = {"err": f"the emulator failed: {error!r}"}
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
            self._busy_until_ns += fault.delay_ns(request)
        for line in lines[:-1]:
            self._queue(line, self._heard_ns + self.request_ns)
        self._reply_message = self._queue(lines[-1]) if lines else None
        if self._after_reply:
            self.trace("stream out", data=self._after_reply[:-1])
            self._messages.append(Message(self._after_reply, self._busy_until_ns))

    def _queue(self, data: bytes, ready_at_ns: int | None = None) -> Message:
        self.trace("reply", line=data.decode(errors="replace"))
        message = Message(data, self._busy_until_ns if ready_at_ns is None else ready_at_ns)
        self._messages.append(message)
        return message

    def new_host(self) -> None:
        """Another program has come: what the one before said last is nothing that this one repeats."""
        self._previous = None

    # --- what the vocabulary works with -------------------------------------------------------------------------

    @property
    def version_numbers(self) -> tuple[int, ...]:
        """(5, 3, 1, 123) of notecard-5.3.1.123."""
        return tuple(int(part) for part in self.version.replace("-", ".").split(".") if part.isdigit())

    def online(self) -> bool:
        """Whether web requests are possible at the time of the request being carried out."""
        return self.link.online(self._heard_ns)

    @property
    def heard_ns(self) -> int:
        """When the request being carried out had arrived."""
        return self._heard_ns

    def time_known(self) -> bool:
        """Whether there has been a first sync."""
        return self.link.completed_ns is not None

    def time_s(self, at_ns: int | None = None) -> int:
        """UTC in whole seconds, by default at the time of the request being carried out."""
        at_ns = self._heard_ns if at_ns is None else at_ns
        return (self.clock.utc_ns() - self.clock.now_ns() + at_ns) // 1_000_000_000

    def connected(self) -> Fields:
        """The member that replies have only when there is a session."""
        return {"connected": True} if self.online() else {}

    def send_later(self, request: WebRequest, file: str, note: str) -> None:
        """Send a web request when there is a session."""
        if len(self.queued) >= QUEUED:
            raise CardError(f"{QUEUED} web requests are waiting already {{too-many-notes}}")
        self.queued.append(Queued(request, file, note, self.heard_ns))

    def signal(self, body: Fields) -> bool:
        """Notehub's signal: heard at once or never. False when there is no session."""
        if not self.link.online(self.agenda.now_ns()):
            return False
        self.signals.append(body)
        self.attn.notify("signal")
        return True

    def send_after_reply(self, data: bytes) -> None:
        """A message of its own behind the reply: clients read on while something is available."""
        self._after_reply = data

    def exchange(self, request: WebRequest, timeout_ns: int) -> WebResponse:
        """Send a web request. Raises CardError when no answer comes in time; the server may have acted all the same."""
        response = self.response(request)
        in_time = self.latency_ns <= timeout_ns and self.link.online(self._heard_ns + self.latency_ns)
        if response is None or not in_time:
            self._busy_until_ns += timeout_ns
            raise CardError("no response in time {timeout}")
        self._busy_until_ns += self.latency_ns
        return response

    def response(self, request: WebRequest) -> WebResponse | None:
        """The server's answer, or whoever's; None when it is lost, or a real server takes longer than `seconds`."""
        for fault in self.faults:
            instead = fault.intercept(request)
            if instead is not None:
                return instead
        self.posts += 1
        self.bytes_posted += len(request.body)
        about = {"method": request.method, "route": request.route, "name": request.name, "content": request.content}
        self.trace("post", **about, data=request.body)
        self._sending = True
        try:
            answer = self.send(request)
        except TimeoutError:
            return None
        finally:
            self._sending = False
        self.trace("answer", status=answer.status, bytes=len(answer.body))
        response: WebResponse | None = answer
        for fault in self.faults:
            if response is not None:
                response = fault.answer(request, response)
        return response

    def _receive_stream(self, stream: bytes) -> bytes:
        for fault in self.faults:
            stream = fault.stream(stream)
        self.trace("stream", data=stream)
        return stream
