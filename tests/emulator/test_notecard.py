"""The emulated Notecard, byte by byte as a host sees it, and the unmodified note-python on it."""

import base64
import hashlib
import json
import textwrap
import zlib
from contextlib import suppress

import pytest
from cobs import cobs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.emulator.notecard_host import MS, SECOND, Host, without_crc

from judder.board import Tree, tree
from judder.emulator.clock import EPOCH_UTC_NS
from judder.emulator.i2c import ACK, ADDRESS_NACK, DATA_NACK, Injected, Transfer
from judder.emulator.notecard import ADDRESS, Fault, WebRequest, WebResponse
from judder.emulator.notecard.binary_store import MAXIMUM, cobs_decode, cobs_encode, cobs_length
from judder.emulator.notecard.faults import (
    AlteredStream,
    AnsweredInstead,
    BadStream,
    BrownOut,
    Disconnected,
    Heartbeat,
    LostAnswer,
    LostReply,
    NotJson,
    ShortStream,
    WrongCrc,
    tunnel_page,
)
from judder.emulator.swan import Swan, Timing

POST = {"req": "web.post", "route": "ingest"}


def token(reply):
    """The {tokens} of an error reply."""
    return reply["err"][reply["err"].index("{") :]


@pytest.fixture
def host():
    return Host()


# --- framing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_bare_newline_is_answered_with_one(host, newline):
    host.write(newline)
    assert host.read_message() == b"\r\n"
    assert host.read_message(SECOND) == b""


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_request_may_end_either_way(host, end):
    host.write(b'{"req":"echo","text":"x"}' + end)
    assert host.read_message() == b'{"text":"x"}\r\n'


@given(st.lists(st.integers(1, 60)), st.booleans())
def test_a_request_may_come_in_any_pieces(lengths, crc):
    host = Host()
    line = host.line({"req": "echo", "text": "abc" * 30}, crc=crc)
    for length in lengths:
        if line[:length]:
            host.write(line[:length])
        line = line[length:]
    if line:
        host.write(line)
    reply = host.read_message()
    assert json.loads(reply)["text"] == "abc" * 30
    assert (b'"crc"' in reply) == crc


def test_half_a_request_is_ended_by_a_newline(host):
    host.write(b'{"req":"card.ver')
    host.drain()
    assert host.ask(req="card.version")["device"] == "dev:864475040000001"


@pytest.mark.parametrize(
    "line", [b"hello", b"[1]", b'"req"', b"{", b"\xff\xfe", b"\0" * 9, b'{"req":NaN}', b"1" * 5000]
)
def test_what_is_no_json_object_is_an_error_worth_a_retry(host, line):
    host.write(line + b"\n")
    assert token(json.loads(host.read_message())) == "{io}"
    assert "version" in host.ask(req="card.version")


@pytest.mark.parametrize("text", ["[" * 4000, '{"a":' * 1500 + "1" + "}" * 1500])
def test_nesting_beyond_reason_is_an_error(host, text):
    host.write(b'{"req":"echo","body":' + text.encode() + b"}\n")
    assert "err" in json.loads(host.read_message())
    assert "version" in host.ask(req="card.version")


def test_a_number_that_json_cannot_say_is_an_error(host):
    host.write(b'{"req":"echo","body":{"a":1e999},"id":1e999}\n')
    assert token(json.loads(host.read_message())) == "{syntax}"


def test_a_request_of_8_kb_is_the_largest(host):
    wrapping = len('{"req":"echo","text":""}')
    for length, fits in ((8192, True), (8193, False), (20_000, False)):
        reply = host.ask(req="echo", text="x" * (length - wrapping), crc=False)
        assert ("text" in reply) == fits
        if not fits:
            assert token(reply) == "{too-big}"


@pytest.mark.parametrize("request_", [{}, {"foo": 1}, {"req": 7}, {"req": ""}, {"req": "card.foo"}, {"req": "web.x"}])
def test_an_unknown_request_is_not_supported(host, request_):
    assert token(host.ask(request_)) == "{not-supported}"


@pytest.mark.parametrize("request_", [{"cmd": "card.version"}, {"cmd": "nonsense"}, {"cmd": "echo", "text": 5}])
def test_a_command_gets_no_reply(host, request_):
    host.write(host.line(request_, crc=False))
    assert host.read_message(5 * SECOND) == b""
    host.write(host.line(request_))
    assert host.read_message(5 * SECOND) == b""
    assert "version" in host.ask(req="card.version")


def test_a_command_is_carried_out(host):
    host.write(host.line({"cmd": "hub.set", "sn": "pump 7"}, crc=False))
    assert host.ask(req="hub.get")["sn"] == "pump 7"


@pytest.mark.parametrize("identity", [7, "seven", 0])
@pytest.mark.parametrize("name", ["card.version", "nonsense"])
def test_the_id_comes_back(host, identity, name):
    assert host.ask(req=name, id=identity)["id"] == identity


# --- checksums --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["card.version", "nonsense"])
def test_a_reply_carries_a_checksum_if_the_request_did(host, name):
    host.write(host.line({"req": name}))
    assert b'"crc":"0000:' in host.read_message()
    host.write(host.line({"req": name}, crc=False))
    assert b"crc" not in host.read_message()


def test_an_empty_reply_has_a_space_for_the_comma(host):
    host.write(host.line({"req": "hub.sync"}))
    assert host.read_message() == b'{ "crc":"0000:%08X"}\r\n' % zlib.crc32(b"{}")


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_hex_digits_may_be_of_either_case(host, case):
    text = b'{"req":"echo","text":"x"}'
    crc = case(f"{zlib.crc32(text):08x}").encode()
    host.write(text[:-1] + b',"crc":"00' + case("ab").encode() + b":" + crc + b'"}\n')
    _, sequence = without_crc(host.read_message())
    assert sequence == 0xAB


def test_a_checksum_that_does_not_fit_is_an_error_worth_a_retry(host):
    line = host.line(POST)
    host.write(line.replace(b"ingest", b"ingesT"))
    text, _ = without_crc(host.read_message())
    assert token(json.loads(text)) == "{io}"
    host.write(line)
    assert b'"result":200' in host.read_message()
    assert len(host.server.requests) == 1


@pytest.mark.parametrize("crc", [b'"crc":5', b'"crc":"1:2"', b'"crc":"0000:00000000","a":1', b'"crc":"zzzz:00000000"'])
def test_a_malformed_checksum_is_an_error_worth_a_retry(host, crc):
    host.write(b'{"req":"card.version",' + crc + b"}\n")
    assert token(json.loads(host.read_message())) == "{io}"


def test_a_checksum_inside_a_body_is_data(host):
    assert host.ask(req="echo", body={"crc": "0001:00000000"}, crc=False) == {"body": {"crc": "0001:00000000"}}


def test_sixteen_bits_of_the_sequence_number_come_back(host):
    host.write(host.line({"req": "card.version"}, sequence=0x10002))
    assert b'"crc":"0002:' in host.read_message()


def test_firmware_before_mid_2023_knows_no_checksums():
    host = Host(checksums=False)
    for _ in range(2):
        host.write(host.line(POST, sequence=1).replace(b':"ingest"', b':"other!"'))
        assert json.loads(host.read_message()) == {"result": 200, "body": {"stored": []}}
    assert host.card.posts == 2


# --- repetitions ------------------------------------------------------------------------------------------------


def test_a_repeated_request_is_answered_but_not_carried_out(host):
    line = host.line(POST)
    host.write(line)
    first = host.read_message()
    host.drain()
    host.server.response = WebResponse(500)
    host.write(line)
    assert host.read_message() == first
    assert (host.card.executed["web.post"], host.card.replayed["web.post"], host.card.posts) == (1, 1, 1)


def test_the_same_request_with_the_next_sequence_number_is_a_new_one(host):
    for _ in range(2):
        host.ask(POST)
    assert (host.card.posts, host.card.replayed.total()) == (2, 0)


def test_only_the_request_before_counts(host):
    line = host.line(POST)
    for one in (line, host.line({"req": "card.version"}), line):
        host.write(one)
        host.read_message()
    assert host.card.posts == 2


def test_without_a_checksum_nothing_is_a_repetition(host):
    for _ in range(2):
        host.ask(POST, crc=False)
    assert host.card.posts == 2


def test_replay_can_be_switched_off():
    host = Host(replay=False)
    line = host.line(POST)
    for _ in range(2):
        host.write(line)
        host.read_message()
    assert (host.card.posts, host.card.replayed.total()) == (2, 0)


def test_a_repetition_before_the_reply_was_read_gets_one_reply(host):
    line = host.line(POST)
    host.write(line)
    host.write(line)
    assert b'"result":200' in host.read_message()
    assert host.read_message(SECOND) == b""


def test_a_repeated_put_takes_its_stream(host):
    encoded = cobs_encode(b"abc")
    line = host.line({"req": "card.binary.put", "cobs": len(encoded)})
    host.write(line)
    host.drain()  # the newline ends the stream of the first
    host.write(line)
    assert b"err" not in host.read_message()
    host.write(encoded + b"\n")
    assert host.ask(req="card.binary")["length"] == 3


# --- time -------------------------------------------------------------------------------------------------------


def test_a_reply_comes_when_the_card_is_done():
    host = Host(latency_ns=2 * SECOND)
    host.write(host.line(POST))
    asked_ns = host.clock.now_ns()
    while not host.announce(0)[0]:
        host.clock.sleep(MS)
    assert host.clock.now_ns() - asked_ns == pytest.approx(2 * SECOND, abs=30 * MS)
    assert json.loads(host.read_message())["result"] == 200


def test_replies_come_in_the_order_of_the_requests():
    host = Host(latency_ns=2 * SECOND)
    host.write(host.line(POST, crc=False))
    host.write(b"\n")
    host.write(host.line({"req": "echo", "text": "after"}, crc=False))
    assert host.announce(0)[0] == 0
    assert b"result" in host.read_message()
    assert host.read_message() == b"\r\n"
    assert host.read_message() == b'{"text":"after"}\r\n'


def test_a_request_is_heard_when_its_last_byte_has_arrived(host):
    line = host.line({"req": "card.time"}, crc=False)
    wire_ns = (len(line) + 1) * 9 * 10_000
    host.clock.sleep(10 * SECOND - wire_ns - 11 * 10_000)
    host.write(line)
    assert json.loads(host.read_message())["time"] == EPOCH_UTC_NS // SECOND + 10


# --- I2C --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("combined", [False, True])
def test_write_and_read_may_be_one_transfer_or_two(combined):
    host = Host(combined=combined)
    assert host.ask(req="echo", text="x" * 700) == {"text": "x" * 700}


def test_available_is_253_at_most_and_counts_what_is_left(host):
    host.write(host.line({"req": "echo", "text": "x" * 600}, crc=False))
    length = len('{"text":""}\r\n') + 600
    assert host.announce(0) == (253, b"")
    assert [len(host.announce(n)[1]) for n in (253, 100)] == [253, 100]
    assert host.announce(0)[0] == 253
    assert host.announce(200)[0] == length - 553
    assert host.announce(length - 553)[0] == 0
    assert host.announce(0)[0] == 0


def test_messages_are_kept_apart(host):
    host.write(b"\n")
    host.write(b"\n")
    assert host.announce(0)[0] == 2
    assert host.announce(2) == (0, b"\r\n")
    assert host.announce(0)[0] == 2


def test_more_than_available_gives_what_there_is(host):
    host.write(b"\n")
    host.write(b"\n")
    assert host.announce(200) == (0, b"\r\n")
    assert host.announce(255) == (0, b"\r\n")
    assert host.announce(10) == (0, b"")


def test_an_announced_read_stays_announced_until_the_next_write(host):
    host.write(b'{"req":"echo","text":"0123456789"}\n')
    host.bus.transfer(Transfer(ADDRESS, bytes([0, 5]), 0))
    reads = [host.bus.transfer(Transfer(ADDRESS, b"", 7))[1] for _ in range(2)]
    assert [read[2:] for read in reads] == [b'{"tex', b't":"0']
    assert [read[1] for read in reads] == [5, 5]


def test_a_read_without_any_write_is_a_query(host):
    assert host.bus.transfer(Transfer(ADDRESS, b"", 4)) == (ACK, b"\0\0\0\0")


def test_bytes_not_clocked_out_are_gone(host):
    host.write(b'{"req":"echo","text":"0123456789"}\n')
    assert host.bus.transfer(Transfer(ADDRESS, bytes([0, 5]), 4)) == (ACK, bytes([18, 5]) + b'{"')
    assert host.announce(3)[1] == b't":'


@pytest.mark.parametrize("written", [b"\0", b"\0\1\2", b"\5abcd", b"\5abcdef", b"\1", b"\xff" + bytes(253)])
def test_a_write_whose_length_does_not_fit_is_refused(host, written):
    host.write(b'{"req":"echo",')
    assert host.bus.transfer(Transfer(ADDRESS, written, 0)) == (DATA_NACK, b"")
    host.write(b'"text":"x"}\n')
    assert host.read_message() == b'{"text":"x"}\r\n'


def test_writes_of_255_bytes_are_taken(host):
    line = b'{"req":"echo","text":"' + b"x" * 229 + b'"}\n'
    assert host.bus.transfer(Transfer(ADDRESS, bytes([len(line)]) + line, 0)) == (ACK, b"")
    assert len(host.read_message()) == len(line) - len('"req":"echo",') + 1


def test_a_lost_read_leaves_the_rest_of_the_message(host):
    host.write(b'{"req":"echo","text":"0123456789"}\n')
    broken = Transfer(ADDRESS, bytes([0, 4]), 6)
    host.bus.faults.append(lambda transfer: Injected(DATA_NACK, consumed=True) if transfer == broken else None)
    assert host.bus.transfer(broken) == (DATA_NACK, b"")
    assert host.announce(4)[1] == b'xt":'


framed = st.binary(min_size=1, max_size=255).map(lambda data: bytes([len(data)]) + data)
pieces = st.sampled_from(
    [
        b'{"req":"card.version"}\n',
        b'{"req":"card.binary.put","cobs":9}\n',
        b'{"cmd":"echo"}',
        b"\n",
        b"\n\n",
        b"{",
        b'"',
    ]
).map(lambda data: bytes([len(data)]) + data)
reads = st.binary(min_size=1, max_size=1).map(b"\0".__add__)
garbage = st.lists(st.tuples(st.one_of(st.binary(max_size=258), framed, pieces, reads), st.integers(0, 300)))


@given(garbage)
@example([(b"\x01\n", 300), (b"\0\xff", 257), (b"", 2)])
def test_garbage_on_the_bus_does_no_harm(transfers):
    host = Host()
    for written, length in transfers:
        status, data = host.bus.transfer(Transfer(ADDRESS, written, length))
        assert len(data) == (length if status == ACK else 0)
    host.drain()
    assert "version" in host.ask(req="card.version")


# --- vocabulary -------------------------------------------------------------------------------------------------


def test_hub_settings_are_kept_and_added_to(host):
    user_agent = {"agent": "note-python"}
    assert host.ask(req="hub.set", product="com.example:pump", mode="continuous", body=user_agent) == {}
    assert host.ask(req="hub.set", sn="7", outbound=60) == {}
    assert host.ask(req="hub.get") == {
        "device": "dev:864475040000001",
        "product": "com.example:pump",
        "mode": "continuous",
        "sn": "7",
        "outbound": 60,
    }


def test_the_card_says_what_it_is():
    reply = Host(device="dev:1", version="notecard-7.2.1.16518").ask(req="card.version")
    assert (reply["device"], reply["version"]) == ("dev:1", "notecard-7.2.1.16518")
    assert [reply["body"][f"ver_{part}"] for part in ("major", "minor", "patch")] == [7, 2, 1]


@pytest.mark.parametrize(("version", "has"), [("4.4.1", False), ("5.3.0", False), ("5.3.1", True), ("10.1.1.1", True)])
def test_the_binary_store_came_with_5_3_1(version, has):
    host = Host(version=f"notecard-{version}", checksums=True)
    for name in ("card.binary", "card.binary.put", "card.binary.get"):
        assert ("not-supported" in host.ask(req=name).get("err", "")) == (not has)


def test_echo_returns_what_it_was_given(host):
    members = {"text": "nonce", "payload": "aGVsbG8=", "body": {"n": [1, None, 2.5]}}
    assert host.ask(req="echo", **members) == members


def test_update_settings_are_kept(host):
    assert host.ask(req="card.dfu") == {"name": "-"}
    assert host.ask(req="card.dfu", name="stm32", off=True) == {"name": "stm32"}
    assert host.ask(req="card.dfu", on=True, mode="aux") == {"name": "stm32"}


def test_the_log_goes_to_notehub(host):
    assert host.ask(req="hub.log", text="hot") == {}
    assert list(host.card.log) == ["hot"]


@pytest.mark.parametrize(
    ("request_", "member"),
    [
        ({"req": "hub.set", "mode": "always"}, "mode"),
        ({"req": "hub.set", "product": 5}, "product"),
        ({"req": "hub.set", "outbound": "5"}, "outbound"),
        ({"req": "hub.set", "outbound": True}, "outbound"),
        ({"req": "hub.log"}, "text"),
        ({"req": "card.dfu", "name": "avr"}, "name"),
        ({"req": "card.dfu", "on": 1}, "on"),
        ({"req": "card.attn", "files": "a"}, "files"),
        ({"req": "card.binary.put"}, "cobs"),
        ({"req": "card.binary.put", "cobs": "12"}, "cobs"),
        ({"req": "card.binary.put", "cobs": 0}, "cobs"),
        ({"req": "card.binary.put", "cobs": MAXIMUM * 2}, "cobs"),
        ({"req": "card.binary.put", "cobs": 5, "offset": 1}, "offset"),
        ({"req": "card.binary.put", "cobs": 5, "offset": -1}, "offset"),
        ({"req": "card.binary.get", "length": 1}, "length"),
        ({"req": "web.post"}, "route"),
        (POST | {"seconds": 0}, "seconds"),
        (POST | {"max": 8193}, "max"),
        (POST | {"payload": "?"}, "payload"),
        (POST | {"payload": "aGk=", "body": {"a": 1}}, "body"),
        (POST | {"binary": True, "payload": "aGk="}, "payload"),
        (POST | {"binary": True}, "binary"),
        (POST | {"content": "text/plain\r\nX: y"}, "content"),
        (POST | {"label": "\u00e9"}, "label"),
        (POST | {"payload": "aGk=", "status": "0" * 32}, "status"),
        (POST | {"offset": 5, "total": 10}, "offset"),
        (POST | {"offset": 5}, "total"),
        (POST | {"payload": "aGkh", "total": 2}, "total"),
        (POST | {"total": -1}, "total"),
        ({"req": "web.get"}, "route"),
    ],
)
def test_what_a_request_lacks_is_named(host, request_, member):
    assert host.ask(request_)["err"].startswith(member + ":")
    assert not host.server.requests


def test_members_in_no_documentation_are_noted(host):
    assert host.ask(req="hub.set", produkt="x", mode="off", body={}) == {}
    assert list(host.card.unknown_members) == ["hub.set: produkt"]


# --- connectivity -----------------------------------------------------------------------------------------------


def test_it_takes_continuous_mode_and_a_while_to_be_online():
    host = Host(online=False, connect_delay_ns=10 * SECOND)
    assert token(host.ask(POST)) == "{hub-not-connected}"
    assert token(host.ask(req="card.time")) == "{no-time}"
    assert "connected" not in host.ask(req="hub.status")
    host.ask(req="hub.set", mode="continuous")
    host.clock.sleep(9 * SECOND)
    assert "err" in host.ask(POST)
    host.clock.sleep(2 * SECOND)
    assert host.ask(POST)["result"] == 200
    assert host.ask(req="hub.status")["connected"]
    assert host.ask(req="card.status")["connected"]
    assert host.ask(req="card.binary")["connected"]
    assert len(host.server.requests) == 1


def test_the_time_is_known_from_the_first_sync_on():
    host = Host(online=False, connect_delay_ns=10 * SECOND)
    host.ask(req="hub.set", mode="continuous")
    assert token(host.ask(req="card.time")) == "{no-time}"
    host.clock.sleep(10 * SECOND)
    assert host.ask(req="card.time")["time"] == host.clock.utc_ns() // SECOND
    host.ask(req="hub.set", mode="off")
    assert host.ask(req="card.time")["time"] == host.clock.utc_ns() // SECOND


def test_periodic_mode_is_not_enough_for_web_requests():
    host = Host(hub={"mode": "periodic"})
    assert token(host.ask(POST)) == "{hub-not-connected}"
    assert host.ask(req="hub.sync") == {}
    assert "time" in host.ask(req="card.time")
    assert token(Host(online=False).ask(req="hub.sync")) == "{hub-mode}"


def test_outages_come_and_go(host):
    host.card.link.outages.append((100 * SECOND, 200 * SECOND))
    assert host.ask(POST)["result"] == 200
    host.clock.sleep(100 * SECOND)
    assert token(host.ask(POST)) == "{hub-not-connected}"
    assert "time" in host.ask(req="card.time")
    host.clock.sleep(100 * SECOND)
    assert host.ask(POST)["result"] == 200


def test_an_outage_from_the_start_puts_off_the_first_sync(host):
    host.card.link.outages += [(50 * SECOND, 60 * SECOND), (0, 50 * SECOND)]
    assert token(host.ask(req="card.time")) == "{no-time}"
    host.clock.sleep(55 * SECOND)
    assert token(host.ask(req="card.time")) == "{no-time}"
    host.clock.sleep(5 * SECOND)
    assert "time" in host.ask(req="card.time")


def test_setting_the_same_mode_again_does_not_reconnect():
    host = Host(connect_delay_ns=10 * SECOND)
    host.clock.sleep(10 * SECOND)
    host.ask(req="hub.set", mode="continuous")
    assert host.ask(POST)["result"] == 200


# --- the binary store -------------------------------------------------------------------------------------------


def reference(data):
    """The same by another implementation."""
    encoded = cobs.encode(data)
    if data and len(encoded) == len(data) + len(data) // 255 + 1 and not len(data) % 254 and 0 not in data[-254:]:
        encoded += b"\1"  # note-c and note-python end a full last block with an empty one
    return bytes(byte ^ 0x0A for byte in encoded)


@given(st.binary(max_size=600))
@example(bytes(1000))
@example(b"\n" * 1000)
@example(bytes(range(256)) * 4)
def test_cobs_is_undone(data):
    encoded = cobs_encode(data)
    assert b"\n" not in encoded
    assert cobs_decode(encoded) == data
    assert len(encoded) == cobs_length(data)
    assert cobs.decode(bytes(byte ^ 0x0A for byte in encoded)) == data
    assert cobs_decode(bytes(byte ^ 0x0A for byte in cobs.encode(data))) == data


@pytest.mark.parametrize("length", [*range(6), 252, 253, 254, 255, 507, 508, 509, 762])
@pytest.mark.parametrize("zero_at", [None, 0, -1])
def test_cobs_length_is_note_cs(length, zero_at):
    data = bytearray(b"\xaa" * length)
    if zero_at is not None and data:
        data[zero_at] = 0
    assert len(cobs_encode(bytes(data))) == len(note_python_encode(data))
    assert cobs_encode(bytes(data)) == note_python_encode(data)


def note_python_encode(data):
    """COBS with XOR 0x0A after its definition, one byte at a time: a block ends at a zero or when it is full."""
    blocks, block = [], b""
    for byte in data:
        if byte:
            block += bytes([byte])
        if not byte or len(block) == 254:
            blocks.append(block)
            block = b""
    blocks.append(block)
    return bytes(byte ^ 0x0A for block in blocks for byte in bytes([len(block) + 1]) + block)


@given(st.binary(min_size=1, max_size=40))
def test_what_is_no_cobs_is_refused_or_decoded_to_something_no_longer(encoded):
    decoded = b""
    with suppress(ValueError):
        decoded = cobs_decode(encoded)
    assert len(decoded) < len(encoded)


def test_the_store_is_appended_to(host):
    data = bytes(range(256)) * 40
    for offset in range(0, len(data), 4096):
        assert host.put(data[offset : offset + 4096], offset) == {}
    assert host.ask(req="card.binary") == {
        "connected": True,
        "max": 130_554,
        "length": len(data),
        "status": hashlib.md5(data).hexdigest(),
        "cobs": len(cobs_encode(data)),
    }
    assert host.card.store.data == data


def test_a_put_without_offset_starts_over(host):
    host.put(b"first")
    host.put(b"second")
    assert host.card.store.data == b"second"


@pytest.mark.parametrize("offset", [1, 4, 6, 1000, -5])
def test_an_offset_that_is_not_the_end_is_refused(host, offset):
    host.put(b"first")
    assert host.put(b"x", offset)["err"].startswith("offset:")
    assert host.ask(req="card.binary")["length"] == 5


@pytest.mark.parametrize("switch", ["delete", "reset"])
def test_the_store_is_emptied(host, switch):
    host.put(b"data")
    empty = {"connected": True, "max": 130_554}
    assert host.ask(req="card.binary", **{switch: True}) == empty
    assert host.ask(req="card.binary") == empty


def test_the_store_takes_its_maximum_and_no_more():
    host = Host(binary_maximum=3000)
    assert host.put(bytes(3000)) == {}
    assert host.ask(req="card.binary")["length"] == 3000
    assert host.put(b"x", 3000)["err"].startswith("cobs:")
    assert host.put(bytes(3100))["err"].startswith("cobs:")
    assert host.ask(req="card.binary")["length"] == 3000
    assert host.put(bytes(3001)) == {}  # the announced length may be that of 3000 bytes; the stream shows it is not
    assert "exceeds 3000 bytes" in host.ask(req="card.binary")["err"]


def test_a_stream_longer_than_the_room_is_bad():
    host = Host(binary_maximum=300)
    zeros = bytes(301)  # as long encoded as 300 bytes without a zero
    host.put(zeros, encoded=cobs_encode(zeros))
    assert token(host.ask(req="card.binary")) == "{bad-bin}{io}"


def test_all_130554_bytes(host):
    data = bytes(range(1, 256)) * 512
    data = data[:MAXIMUM]
    assert host.put(data, status=hashlib.md5(data).hexdigest()) == {}
    assert host.ask(req="card.binary")["status"] == hashlib.md5(data).hexdigest()


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_an_md5_that_fits(host, case):
    host.put(b"abc", status=case(hashlib.md5(b"abc").hexdigest()))
    assert host.ask(req="card.binary")["length"] == 3


BAD_STREAMS = {
    "short": {"encoded": b"\x0fabc", "announced": 9},
    "empty": {"encoded": b"", "announced": 9},
    "long": {"encoded": cobs_encode(b"abcdef"), "announced": 4},
    "undecodable": {"encoded": b"\x7fabc"},
    "md5": {"status": "0" * 32},
}


@pytest.mark.parametrize("bad", BAD_STREAMS.values(), ids=BAD_STREAMS)
def test_a_bad_stream_shows_at_the_next_look_and_until_it_is_cleared(host, bad):
    host.put(b"good")
    assert host.put(b"bad", 4, **bad) == {}
    for _ in range(2):
        reply = host.ask(req="card.binary")
        assert token(reply) == "{bad-bin}{io}"
        assert (reply["max"], reply["connected"]) == (130_554, True)
    assert token(host.ask(POST | {"binary": True})) == "{bad-bin}{io}"
    assert token(host.ask(req="card.binary.get", length=1)) == "{bad-bin}{io}"
    assert not host.server.requests


@pytest.mark.parametrize("clears", [{"delete": True}, {"reset": True}])
def test_a_bad_stream_is_forgotten_with_the_rest(host, clears):
    host.put(b"bad", **BAD_STREAMS["md5"])
    assert host.ask(req="card.binary", **clears) == {"connected": True, "max": 130_554}


def test_a_bad_stream_can_be_sent_again(host):
    host.put(b"good")
    host.put(b"more", 4, **BAD_STREAMS["md5"])
    host.put(b"more", 4)
    assert host.ask(req="card.binary")["length"] == 8
    assert host.card.store.data == b"goodmore"
    assert (host.card.store.streams, host.card.store.streams_refused) == (3, 1)


def test_too_few_bytes_are_counted(host):
    host.put(b"", encoded=b"\x0fabc", announced=9)
    assert host.ask(req="card.binary")["err"].startswith(
        "binary receive prematurely terminated (5 more bytes expected)"
    )


def test_a_stream_that_stops_is_given_up(host):
    host.ask(req="card.binary.put", cobs=500)
    host.write(b"abc")
    host.clock.sleep(6 * SECOND)
    assert token(host.ask(req="card.binary")) == "{bad-bin}{io}"


def test_a_stream_may_pause(host):
    encoded = cobs_encode(b"abcdef")
    host.ask(req="card.binary.put", cobs=len(encoded))
    for i in range(len(encoded)):
        host.write(encoded[i : i + 1])
        host.clock.sleep(2 * SECOND)
    host.write(b"\n")
    assert host.ask(req="card.binary")["length"] == 6


def test_requests_may_follow_a_stream_in_one_segment(host):
    encoded = cobs_encode(b"abc")
    host.ask(req="card.binary.put", cobs=len(encoded))
    host.write(encoded + b'\n{"req":"card.binary"}\n')
    assert json.loads(host.read_message())["length"] == 3


@pytest.mark.parametrize(("offset", "length"), [(0, 300), (0, 1), (299, 1), (100, 100)])
def test_data_comes_back_in_a_message_of_its_own(host, offset, length):
    data = bytes(range(256)) + bytes(44)
    host.put(data)
    part = data[offset : offset + length]
    assert host.ask(req="card.binary.get", offset=offset, length=length) == {"status": hashlib.md5(part).hexdigest()}
    encoded = host.read_message()
    assert encoded.endswith(b"\n")
    assert cobs_decode(encoded[:-1]) == part


@pytest.mark.parametrize("members", [{"offset": 301}, {"offset": 299, "length": 2}, {"length": 0}, {"offset": -1}])
def test_data_outside_the_store_does_not_exist(host, members):
    host.put(bytes(300))
    assert host.ask(req="card.binary.get", **members)["err"].startswith("length:")
    assert host.read_message(SECOND) == b""


def test_a_command_for_data_gets_nothing_nor_does_the_next_request(host):
    host.put(b"abc")
    host.write(host.line({"cmd": "card.binary.get", "length": 3}, crc=False))
    assert "version" in host.ask(req="card.version")
    assert host.read_message(SECOND) == b""


# --- web.post ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "body"),
    [
        ({"body": {"a": [1, 2]}}, b'{"a":[1,2]}'),
        ({"body": {}}, b"{}"),
        ({"payload": base64.b64encode(b"\0\xff").decode()}, b"\0\xff"),
        ({}, b""),
    ],
)
def test_bodies(host, members, body):
    host.ask(POST | members | {"name": "/ingest?d=dev%3A1", "content": "text/plain", "label": "L"})
    assert host.server.requests == [WebRequest("POST", "ingest", "/ingest?d=dev%3A1", "text/plain", body, "L")]
    assert host.card.bytes_posted == len(body)


def test_the_store_is_posted_and_kept(host):
    data = bytes(range(256)) * 20
    host.put(data)
    assert host.ask(POST | {"binary": True, "status": hashlib.md5(data).hexdigest()})["result"] == 200
    assert host.server.requests == [WebRequest("POST", "ingest", "", "application/json", data)]
    assert host.ask(req="card.binary")["length"] == len(data)


HTML = b"<html></html>"


@pytest.mark.parametrize(
    ("response", "reply"),
    [
        (WebResponse(200, b'{"stored":[[1,2]]}'), {"result": 200, "body": {"stored": [[1, 2]]}}),
        (WebResponse(503, b'{"err":"full"}'), {"result": 503, "body": {"err": "full"}}),
        (WebResponse(204), {"result": 204}),
        (WebResponse(404, b""), {"result": 404}),
        (
            WebResponse(200, HTML),
            {"result": 200, "payload": base64.b64encode(HTML).decode(), "status": hashlib.md5(HTML).hexdigest()},
        ),
    ],
)
def test_responses(host, response, reply):
    host.server.response = response
    assert host.ask(POST) == reply


@pytest.mark.parametrize("body", [b"[1]", b"1", b'{"a":NaN}', b'{"a":1e999}', b"\xff", b"[" * 5000])
def test_json_that_is_no_plain_object_is_payload(host, body):
    host.server.response = WebResponse(200, body)
    assert base64.b64decode(host.ask(POST)["payload"]) == body


def test_a_large_response_is_an_error(host):
    host.server.response = WebResponse(200, b"x" * 8192)
    assert len(host.ask(POST)["payload"]) == 10_924
    assert token(host.ask(POST | {"max": 8191})) == "{too-big}"
    host.server.response = WebResponse(200, b"x" * 8193)
    assert token(host.ask(POST)) == "{too-big}"


@pytest.mark.parametrize(("latency_s", "in_time"), [(4, True), (6, False)])
def test_an_answer_after_seconds_is_a_timeout_though_the_server_acted(latency_s, in_time):
    host = Host(latency_ns=latency_s * SECOND)
    started_ns = host.clock.now_ns()
    reply = host.ask(POST | {"seconds": 5})
    took_s = (host.clock.now_ns() - started_ns) / SECOND
    assert len(host.server.requests) == 1
    assert took_s == pytest.approx(min(latency_s, 5), abs=0.3)
    assert (reply.get("result") == 200) if in_time else (token(reply) == "{timeout}")


def test_the_network_may_vanish_during_a_post():
    host = Host(latency_ns=3 * SECOND)
    host.card.link.outages.append((SECOND, 100 * SECOND))
    assert token(host.ask(POST | {"seconds": 5})) == "{timeout}"
    assert host.card.posts == len(host.server.requests) == 1


# --- faults -----------------------------------------------------------------------------------------------------


def test_a_lost_reply_is_had_by_asking_again(host):
    host.card.faults.append(LostReply())
    line = host.line(POST)
    host.write(line)
    assert host.read_message(30 * SECOND) == b""
    host.write(line)
    assert b'"result":200' in host.read_message()
    assert len(host.server.requests) == 1


def test_a_lost_answer_is_a_timeout_though_the_server_acted(host):
    host.card.faults.append(LostAnswer())
    assert token(host.ask(POST | {"seconds": 30})) == "{timeout}"
    assert host.clock.now_ns() > 30 * SECOND
    assert len(host.server.requests) == 1
    assert host.ask(POST)["result"] == 200


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_somebody_else_may_answer(host, status):
    host.card.faults.append(AnsweredInstead(status, b'{"err":"no"}', skip=1, times=2))
    assert [host.ask(POST)["result"] for _ in range(4)] == [200, status, status, 200]
    assert len(host.server.requests) == host.card.posts == 2
    assert host.card.faults[0].hits == 2


def test_a_tunnel_may_answer(host):
    host.card.faults.append(tunnel_page())
    reply = host.ask(POST)
    assert reply["result"] == 200
    assert base64.b64decode(reply["payload"]).startswith(b"<!DOCTYPE html>")
    assert not host.server.requests


@given(st.binary(min_size=1, max_size=1000))
@example(b"\0")
@example(bytes([5]) * 254)
@example(bytes([5]) * 508)
def test_a_bad_stream_never_decodes(data):
    with pytest.raises(ValueError, match="block"):
        cobs_decode(BadStream().stream(cobs_encode(data)))


@given(st.binary(min_size=1, max_size=1000))
@example(b"\1")
@example(b"\0\1\0")
def test_an_altered_stream_decodes_to_something_else(data):
    fault = AlteredStream()
    altered = fault.stream(cobs_encode(data))
    assert b"\n" not in altered
    assert len(cobs_decode(altered)) == len(data)
    assert sum(a != b for a, b in zip(cobs_decode(altered), data, strict=True)) == fault.hits == any(data)


@pytest.mark.parametrize("fault", [BadStream, ShortStream])
def test_a_stream_that_breaks_on_the_way(host, fault):
    host.card.faults.append(fault())
    host.put(b"first")
    assert token(host.ask(req="card.binary")) == "{bad-bin}{io}"
    host.put(b"again")
    assert host.ask(req="card.binary")["length"] == 5


def test_an_altered_stream_shows_only_by_its_md5(host):
    host.card.faults.append(AlteredStream(times=2))
    host.put(b"first")
    assert host.ask(req="card.binary")["length"] == 5
    assert host.card.store.data != b"first"
    host.put(b"again", status=hashlib.md5(b"again").hexdigest())
    assert token(host.ask(req="card.binary")) == "{bad-bin}{io}"


def test_a_reply_with_a_wrong_crc(host):
    host.card.faults.append(WrongCrc())
    line = host.line(POST)
    host.write(line)
    reply = host.read_message()
    with pytest.raises(AssertionError):
        without_crc(reply)
    host.write(line)
    without_crc(host.read_message())
    assert host.card.posts == 1


def test_a_reply_that_is_no_json(host):
    host.card.faults.append(NotJson("card.version"))
    host.ask(req="hub.get")
    host.write(host.line({"req": "card.version"}))
    assert host.read_message() == b"~?!\r\n"


def test_a_heartbeat_comes_before_the_reply():
    host = Host(latency_ns=20 * SECOND)
    host.card.faults.append(Heartbeat())
    host.write(host.line(POST))
    text, sequence = without_crc(host.read_message(SECOND))
    assert (token(json.loads(text)), sequence) == ("{heartbeat}", 0)
    assert host.read_message(SECOND) == b""
    assert b'"result":200' in host.read_message(30 * SECOND)


def test_after_a_brown_out_only_the_settings_are_left():
    host = Host(connect_delay_ns=10 * SECOND)
    host.clock.sleep(10 * SECOND)
    host.ask(req="hub.set", sn="7")
    host.put(b"data")
    host.write(host.line(POST))
    host.write(b'{"req":"card.ver')
    host.card.brown_out()
    assert host.bus.transfer(Transfer(ADDRESS, b"\1\n", 0)) == (ADDRESS_NACK, b"")
    assert host.bus.transfer(Transfer(ADDRESS, b"", 4)) == (ADDRESS_NACK, b"")
    host.card.feed(b'{"req":"card.version"}\n')  # serial: nobody listens
    assert host.card.available() == 0
    host.clock.sleep(SECOND)
    host.drain()
    assert token(host.ask(req="card.time")) == "{no-time}"
    assert token(host.ask(POST)) == "{hub-not-connected}"
    assert "length" not in host.ask(req="card.binary")
    assert host.ask(req="hub.get")["sn"] == "7"
    host.clock.sleep(10 * SECOND)
    assert host.ask(POST)["result"] == 200
    assert host.card.restarts == 1


def test_a_brown_out_in_mid_stream(host):
    encoded = cobs_encode(bytes(range(200)))
    host.ask(req="card.binary.put", cobs=len(encoded))
    host.write(encoded[:100])
    host.card.brown_out()
    host.clock.sleep(SECOND)
    host.write(encoded[100:] + b"\n")  # to the card a line that makes no sense
    assert token(json.loads(host.read_message())) == "{io}"
    assert "length" not in host.ask(req="card.binary")


def test_a_brown_out_instead_of_an_answer(host):
    host.card.faults.append(BrownOut("web.post"))
    host.write(host.line(POST))
    assert host.card.restarts == 1
    assert not host.server.requests


def test_a_restart_is_answered(host):
    host.put(b"data")
    assert host.ask(req="card.restart", crc=False) == {}
    assert "length" not in host.ask(req="card.binary")


def test_a_fault_by_hand(host):
    class Slow(Fault):
        def answer(self, request, response):
            return WebResponse(response.status, b'{"slow":true}')

    host.card.faults.append(Slow())
    assert host.ask(POST)["body"] == {"slow": True}


# --- any sequence of requests -----------------------------------------------------------------------------------


any_values = st.one_of(st.none(), st.integers(), st.text(max_size=9))
any_members = st.dictionaries(st.sampled_from(["text", "name", "id", "mode"]), any_values)


class AnySequence(RuleBasedStateMachine):
    """A model of the store beside the card: its content, and whether the last stream was bad."""

    def __init__(self):
        super().__init__()
        self.host = Host(binary_maximum=2000)
        self.data = b""
        self.bad = False

    @initialize(replay=st.booleans())
    def choose(self, replay):
        self.host.card.replay = replay

    @rule(data=st.binary(min_size=1, max_size=700), append=st.booleans(), md5=st.booleans())
    def put(self, data, append, md5):
        offset = len(self.data) if append else 0
        status = {"status": hashlib.md5(data).hexdigest()} if md5 else {}
        reply = self.host.put(data, offset, **status)
        room = 2000 - offset
        if len(cobs_encode(data)) > room + room // 254 + 1:
            assert reply["err"].startswith("cobs:")
            return
        assert reply == {}
        self.data = self.data if append else b""
        self.bad = offset + len(data) > 2000
        if not self.bad:
            self.data += data

    @rule(kind=st.sampled_from(list(BAD_STREAMS.values())), append=st.booleans())
    def put_badly(self, kind, append):
        offset = len(self.data) if append else 0
        if "err" not in self.host.put(b"bad", offset, **kind):
            self.data = self.data if append else b""
            self.bad = True

    @rule(switch=st.sampled_from(["delete", "reset"]))
    def clear(self, switch):
        self.host.ask(req="card.binary", **{switch: True})
        self.data, self.bad = b"", False

    @precondition(lambda self: self.data and not self.bad)
    @rule()
    def post(self):
        assert self.host.ask(POST | {"binary": True})["result"] == 200
        assert self.host.server.requests[-1].body == self.data

    @rule(name=st.sampled_from(["card.version", "nonsense", "hub.get", "echo"]), members=any_members)
    def ask(self, name, members):
        self.host.ask(req=name, **members)

    @rule(name=st.sampled_from(["card.version", "nonsense", "hub.get"]))
    def command(self, name):
        self.host.write(self.host.line({"cmd": name}, crc=False))

    @rule()
    def repeat(self):
        before = self.host.card.executed["echo"]
        line = self.host.line({"req": "echo", "text": "again"})
        replies = []
        for _ in range(2):
            self.host.write(line)
            replies.append(self.host.read_message())
        assert replies[0] == replies[1]
        assert self.host.card.executed["echo"] == before + (1 if self.host.card.replay else 2)

    @rule()
    def newline(self):
        self.host.write(b"\n")
        assert self.host.read_message() == b"\r\n"

    @rule()
    def brown_out(self):
        self.host.card.brown_out()
        self.host.clock.sleep(SECOND)
        self.data, self.bad = b"", False

    @invariant()
    def nothing_is_left_unread(self):
        assert self.host.read_message(0) == b""

    @invariant()
    def the_store_is_what_was_put(self):
        reply = self.host.ask(req="card.binary")
        assert ("err" in reply) == self.bad
        assert reply["max"] == 2000
        if not self.bad:
            assert reply.get("length", 0) == len(self.data)
            assert reply.get("status", hashlib.md5(b"").hexdigest()) == hashlib.md5(self.data).hexdigest()
        assert self.host.card.store.data == self.data


AnySequence.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestAnySequence = AnySequence.TestCase


# --- the unmodified note-python ---------------------------------------------------------------------------------

PREAMBLE = """
import board, busio, time
import notecard
from notecard import binary_helpers, upload
class Bus:  # its lock may be taken twice, without which no retry of note-python works
    def __init__(self):
        self.i2c = busio.I2C(board.SCL, board.SDA, frequency=100000)
        self.i2c.try_lock()
        self.writeto = self.i2c.writeto
        self.writeto_then_readfrom = self.i2c.writeto_then_readfrom
    def try_lock(self):
        return True
    def unlock(self):
        pass
i2c = Bus()
card = notecard.OpenI2C(i2c, 0, 0)
data = bytearray(bytes(range(256)) * 12)
def attempt(action, *arguments):
    try:
        return action(*arguments)
    except Exception as error:
        return error.args[0]
"""


@pytest.fixture
def note_python(tmp_path):
    """Run lines that use note-python on an emulated Swan beside `host`'s card; returns what they print."""

    def run(host, text):
        (tmp_path / "main.py").write_text(PREAMBLE + textwrap.dedent(text) + '\nprint("end")\n')
        (tmp_path / "lib").symlink_to(tree().device / "lib")
        timing = Timing(stall_probability=0.0)
        with Swan(host.clock, host.bus, timing=timing, firmware=Tree(tmp_path, tree().boot)) as swan:
            swan.run(lambda: "end" in swan.lines)
        return [line for line in swan.lines if line != "end"][1:]

    return run


def test_note_python_transmits_and_receives(host, note_python):
    lines = note_python(
        host,
        """
        binary_helpers.binary_store_transmit(card, data, 0)
        binary_helpers.binary_store_transmit(card, data, len(data))
        print(binary_helpers.binary_store_decoded_length(card))
        print(binary_helpers.binary_store_receive(card, 0, 2 * len(data)) == data + data)
        print(binary_helpers.binary_store_receive(card, 100, 300) == data[100:400])
        print(card.Transaction({"req": "web.post", "route": "ingest", "binary": True})["result"])
        binary_helpers.binary_store_reset(card)
        print(binary_helpers.binary_store_decoded_length(card))
        """,
    )
    assert lines == ["6144", "True", "True", "200", "0"]
    assert host.server.requests[0].body == bytes(range(256)) * 24


def test_note_python_uploads(host, note_python):
    lines = note_python(host, 'print(upload.upload(card, data, "ingest", "/ingest", "L")["bytes_uploaded"])')
    assert lines == ["3072"]
    expected = WebRequest("POST", "ingest", "/ingest", "application/octet-stream", bytes(range(256)) * 12, "L")
    assert host.server.requests == [expected]


@pytest.mark.parametrize(
    "fault",
    [AnsweredInstead(503), LostAnswer(), BrownOut(skip=1), Disconnected(skip=1), LostReply(skip=2)],
    ids=lambda fault: type(fault).__name__,
)
def test_note_python_s_upload_comes_through(host, note_python, fault):
    """It repeats the fragment that failed, up to 20 times."""
    host.card.faults.append(fault)
    sent = 'upload.upload(card, data, "ingest", "/x", max_chunk_size=1200)["bytes_uploaded"]'
    assert note_python(host, f"print({sent})") == ["3072"]
    assert fault.hits == 1
    assert {request.body for request in host.server.requests} == {bytes(range(256)) * 12}


def test_note_python_gives_up_at_a_bad_stream_until_the_store_is_reset(host, note_python):
    host.card.faults.append(BadStream())
    lines = note_python(
        host,
        """
        print(attempt(binary_helpers.binary_store_transmit, card, data, 0))
        print(attempt(binary_helpers.binary_store_decoded_length, card))
        binary_helpers.binary_store_reset(card)
        binary_helpers.binary_store_transmit(card, data, 0)
        print(binary_helpers.binary_store_decoded_length(card))
        """,
    )
    assert lines == ["Failed to transact with Notecard."] * 2 + ["3072"]


def test_note_python_gets_a_lost_reply_without_a_second_post(host, note_python):
    host.card.faults.append(LostReply())
    lines = note_python(
        host,
        """
        print(card.Transaction({"req": "web.post", "route": "ingest", "seconds": 5})["result"])
        print("version" in card.Transaction({"req": "card.version"}))
        """,
    )
    assert lines == ["200", "True"]
    assert (host.card.posts, host.card.replayed["web.post"]) == (1, 1)


@pytest.mark.parametrize(("replay", "posts"), [(True, 1), (False, 2)])
def test_note_python_asks_again_after_a_heartbeat(note_python, replay, posts):
    host = Host(replay=replay)
    host.card.faults.append(Heartbeat())
    lines = note_python(
        host,
        """
        print(card.Transaction({"req": "web.post", "route": "ingest", "seconds": 5})["result"])
        print("version" in card.Transaction({"req": "card.version"}))
        """,
    )
    assert lines == ["200", "True"]
    assert host.card.posts == posts


def test_note_python_survives_a_wrong_crc(host, note_python):
    host.card.faults.append(WrongCrc("web.post"))
    lines = note_python(host, 'print(card.Transaction({"req": "web.post", "route": "ingest"})["result"])')
    assert lines == ["200"]
    assert host.card.posts == 1


def test_note_python_fails_when_its_sequence_number_outgrows_16_bits(host, note_python):
    lines = note_python(
        host,
        """
        card._last_request_seq_number = 65535
        print("version" in card.Transaction({"req": "card.version"}))
        print(attempt(card.Transaction, {"req": "card.version"}))
        card = notecard.OpenI2C(i2c, 0, 0)
        print("version" in card.Transaction({"req": "card.version"}))
        """,
    )
    assert lines == ["True", "Failed to transact with Notecard.", "True"]


def test_note_python_finds_its_way_back_after_a_brown_out(host, note_python):
    host.card.faults.append(BrownOut("web.post"))
    lines = note_python(
        host,
        """
        print(card.Transaction({"req": "web.post", "route": "ingest", "seconds": 5})["result"])
        """,
    )
    assert lines == ["200"]
    assert len(host.server.requests) == 1


def test_note_python_cannot_take_busio_s_own_lock_for_a_retry(host, note_python):
    """One NACK is fatal with CircuitPython's lock: the retry wants the lock that the transaction holds."""
    nacks = []

    def once(transfer):
        if host.card.executed["echo"] and not nacks and len(transfer.written) > 2:
            nacks.append(transfer)
            return Injected(ADDRESS_NACK)
        return None

    host.bus.faults.append(once)
    lines = note_python(
        host,
        """
        i2c.i2c.unlock()
        card = notecard.OpenI2C(i2c.i2c, 0, 0)
        card.Transaction({"req": "echo"})
        print(attempt(card.Transaction, {"req": "card.version"}))
        print("version" in card.Transaction({"req": "card.version"}))
        """,
    )
    assert lines == ["Failed to acquire I2C lock.", "True"]
