"""Anything a host, Notehub and the server may do to the emulated Notecard, in turn; then the card still answers."""

import json
import struct

from tests.emulator.notecard_host import MS, SECOND, Host, with_crc

from judder.emulator.i2c import ACK, Transfer
from judder.emulator.notecard import ADDRESS, WebResponse
from judder.emulator.notecard.binary_store import cobs_encode, md5
from judder.emulator.notecard.twin import Firmware, Inbound
from judder.emulator.notecard.vocabulary import VOCABULARY

SERIAL, SEGMENT, TRANSFER, READ, WAIT, LINE, PICKED, STREAM, NOTEHUB, SERVER, BROWN_OUT = KINDS = range(11)
_STEP = struct.Struct("<BB")  # kind, length of what belongs to it
_NAMES = list(VOCABULARY)
_PART = b"abc\0def\n" * 4
_TEXTS = [
    "",
    "a.qo",
    "b.qi",
    "c.db",
    "d.qos",
    "e.dbs",
    "x",
    "?",
    "*",
    "1",
    "-",
    "YWJj",
    "continuous",
    "periodic",
    "dfu",
]
_TEXTS += ["off", "arm", "watchdog", "disarm,-all", "rearm", "sleep", "motion,files", "ingest", "/name", md5(_PART)]
_NUMBERS = [0, 1, -1, 3, 9, 33, 100, 3600, 250, 8192, 1 << 20, 1 << 31, 1 << 53]
_OBJECTS = [{}, {"a": 1}, {"a": True, "b": 14.1, "c": "12"}, {"x": {"y": [1, None, "z" * 300]}}]
_LISTS = [[], ["a.qo"], ["a.qo", "b.qi", "c.db"], ["a"], [1]]


def step(kind, data=b"", length=0):
    return _STEP.pack(kind, len(data) or length) + data


def picked(name, **members):
    """A request for PICKED, with the numbers of the values of its members."""
    known = list(VOCABULARY[name].members)
    return step(
        PICKED, bytes([_NAMES.index(name)]) + b"".join(bytes((known.index(one), members[one])) for one in members)
    )


SEEDS = [
    step(PICKED, bytes([number])) + step(PICKED, bytes((number, 0, 1, 1, 1, 2, 1, 3, 1))) + step(WAIT, length=40)
    for number in range(len(_NAMES))
]
SEEDS += [
    step(LINE, b'{"req":"card.binary.put","cobs":34}') + step(STREAM, _PART) + step(LINE, b'{"req":"card.binary.get"}'),
    step(LINE, b'{"req":"web.post","route":"r","payload":"AAAA"}') + step(READ, length=99) + step(BROWN_OUT),
    step(SEGMENT, b'{"req":"card.time","crc":"0001:00000000"}\n') + step(WAIT, length=9) + step(READ),
    step(TRANSFER, b"\x05\0\xff") + step(TRANSFER, b"\x40\x01\n"),
    step(NOTEHUB, b"\0bb") + step(LINE, b'{"req":"hub.sync"}') + step(WAIT, length=30) + picked("note.get", file=2),
    step(NOTEHUB, b"\2firm") + step(LINE, b'{"req":"dfu.status","on":true}') + step(WAIT, length=50)
    + step(LINE, b'{"req":"hub.set","mode":"dfu"}') + step(LINE, b'{"req":"dfu.get","length":2}'),
    step(SERVER, b'\xc8{"a":1}') + step(LINE, b'{"req":"web.get","route":"r"}') + step(SERVER, b"\xff<html>" * 20)
    + step(LINE, b'{"req":"web.post","route":"r","body":{},"binary":true}'),
]  # fmt: skip
WORDS = [
    json.dumps(word).encode()
    for word in (*VOCABULARY, *{one for known in VOCABULARY.values() for one in known.members})
]
WORDS += [bytes((kind, 9)) for kind in KINDS]


def run(data):
    host = Host()
    at = 0
    while at + _STEP.size <= len(data):
        kind, length = _STEP.unpack_from(data, at)
        kind %= len(KINDS)
        at += _STEP.size
        taken = 0 if kind in (READ, WAIT, BROWN_OUT) else length
        act(host, kind, length, data[at : at + taken])
        at += taken
    host.clock.sleep(250 * SECOND)
    host.drain()
    assert "version" in host.ask(req="card.version")
    if host.card.bugs:
        raise host.card.bugs[0]


def act(host, kind, length, data):
    if kind == SERIAL:
        host.card.feed(data)
        while available := host.card.available():
            assert len(host.card.read(available)) == available
    elif kind == SEGMENT:
        transfer(host, bytes([len(data)]) + data, 0)
    elif kind == TRANSFER:
        transfer(host, data[1:], data[0] if data else 0)
    elif kind == READ:
        transfer(host, bytes((0, length)), length + 2)
    elif kind == WAIT:
        host.clock.sleep(length**2 * 20 * MS)
    elif kind == NOTEHUB:
        at_notehub(host.card.twin, data)
    elif kind == SERVER:
        host.server.response = WebResponse(data[0] * 3 if data else 200, data[1:] * 100)
    elif kind == BROWN_OUT:
        host.card.brown_out()
    elif host.card.up():
        if kind == STREAM:
            host.write(cobs_encode(data) + b"\n")
        else:
            line = data if kind == LINE else json.dumps(request(data), separators=(",", ":")).encode()
            host.write((with_crc(line, host.sequence) if line.endswith(b"}") else line) + b"\n")
            host.sequence += 1
        host.clock.sleep(400 * MS)  # a web request takes 300; to poll for it would take most of the time there is
        host.read_message(0)


def request(data):
    """One that is in the vocabulary, each member of the kind it has to be of."""
    name = _NAMES[data[0] % len(_NAMES)] if data else "echo"
    known = list(VOCABULARY[name].members.items())
    fields = {"req" if len(data) & 1 else "cmd": name}
    for which, value in zip(data[1::2], data[2::2], strict=False) if known else ():
        member, kind = known[which % len(known)]
        fields[member] = value_of(kind, value)
    return fields


def value_of(kind, number):
    if isinstance(kind, tuple):
        return kind[number % len(kind)]
    if kind is bool:
        return bool(number & 1)
    if kind is float:
        return number / 7
    values = {int: _NUMBERS, dict: _OBJECTS, list: _LISTS}.get(kind, _TEXTS)
    return values[number % len(values)]


def at_notehub(twin, data):
    text = data[1:].decode(errors="replace")
    what = data[0] % 3 if data else 0
    if what == 0:
        twin.send_note(Inbound(text[:4] + (".qi", ".db")[len(data) & 1], {"n": 1}, data[1:], text[4:]))
    elif what == 1:
        twin.set_environment({text[:8]: text[8:] or None})
    else:
        twin.offer(Firmware("model.bin", data[1:], text[:3]))


def transfer(host, written, read_length):
    status, data = host.bus.transfer(Transfer(ADDRESS, written, read_length))
    assert len(data) == (read_length if status == ACK else 0)
