"""A client of the emulated Notecard, written from the documents alone, for tests."""

import json
import zlib

from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import ACK, I2CBus, Transfer
from judder.emulator.notecard import ADDRESS, Notecard, NotecardI2C, WebResponse
from judder.emulator.notecard.binary_store import cobs_encode

MS = 1_000_000
SECOND = 1_000 * MS


class Server:
    """What is at the end of the route."""

    def __init__(self):
        self.requests = []
        self.response = WebResponse(200, b'{"stored":[]}')

    def send(self, request):
        self.requests.append(request)
        return self.response


class Host:
    """A client of the emulated card: segments, polls and checksums as the documents ask for."""

    def __init__(self, *, online=True, combined=False, **options):
        self.clock = VirtualClock()
        self.bus = I2CBus(self.clock)
        self.server = Server()
        options.setdefault("connect_delay_ns", 0)
        if online:
            options.setdefault("hub", {"mode": "continuous"})
        self.card = Notecard(self.clock, self.server.send, **options)
        self.bus.attach(ADDRESS, NotecardI2C(self.card))
        self.combined = combined
        self.sequence = 0

    def write(self, data):
        for start in range(0, len(data), 250):
            segment = data[start : start + 250]
            assert self.bus.transfer(Transfer(ADDRESS, bytes([len(segment)]) + segment, 0)) == (ACK, b"")
            self.clock.sleep(20 * MS)

    def announce(self, length):
        """One read: bytes still available, bytes."""
        header = bytes([0, length])
        if self.combined:
            status, data = self.bus.transfer(Transfer(ADDRESS, header, length + 2))
        else:
            assert self.bus.transfer(Transfer(ADDRESS, header, 0)) == (ACK, b"")
            status, data = self.bus.transfer(Transfer(ADDRESS, b"", length + 2))
        assert (status, len(data)) == (ACK, length + 2)
        return data[0], data[2 : 2 + data[1]]

    def read_message(self, patience_ns=120 * SECOND):
        """The next message, b"" if there is none in time."""
        give_up_ns = self.clock.now_ns() + patience_ns
        available, _ = self.announce(0)
        while not available:
            if self.clock.now_ns() > give_up_ns:
                return b""
            self.clock.sleep(50 * MS)
            available, _ = self.announce(0)
        message = b""
        while available:
            available, data = self.announce(available)
            message += data
        return message

    def drain(self):
        """Resynchronise: newlines until nothing but CR and LF comes back."""
        for _ in range(10):
            self.write(b"\n")
            seen = b""
            while message := self.read_message(500 * MS):
                seen += message
            if seen and not seen.strip(b"\r\n"):
                return
        raise AssertionError("the card does not get in step")

    def line(self, request, *, crc=True, sequence=None):
        text = json.dumps(request, separators=(",", ":")).encode()
        if crc:
            sequence = self.sequence if sequence is None else sequence
            text = with_crc(text, sequence)
        self.sequence += 1
        return text + b"\n"

    def ask(self, request=None, /, *, crc=True, **members):
        """One transaction: the reply as a dict, without its checksum, which has to fit."""
        request = {**(request or {}), **members}
        line = self.line(request, crc=crc)
        self.write(line)
        reply = self.read_message()
        assert reply.endswith(b"\r\n")
        if crc:
            reply, sequence = without_crc(reply)
            assert sequence == self.sequence - 1
        return json.loads(reply)

    def put(self, data, offset=0, encoded=None, announced=None, **members):
        """card.binary.put and its stream; the reply."""
        encoded = cobs_encode(data) if encoded is None else encoded
        if offset:
            members["offset"] = offset
        reply = self.ask(req="card.binary.put", cobs=announced or len(encoded), **members)
        if "err" not in reply:
            self.write(encoded + b"\n")
        return reply


def with_crc(text, sequence):
    comma = b"" if text == b"{}" else b","
    return text[:-1] + comma + b'"crc":"%04x:%08x"}' % (sequence, zlib.crc32(text))


def without_crc(line):
    """Checks as note-python does, with the whole line; the line without the member, and its sequence number."""
    sequence, crc = json.loads(line)["crc"].split(":")
    text = line.split(b'"crc":')[0].rstrip(b", ") + b"}"
    assert int(crc, 16) == zlib.crc32(text)
    return text, int(sequence, 16)
