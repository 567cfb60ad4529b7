"""Long talks, garbage, and several users of one bus."""

import gc
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import notecard
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notecard import binary_helpers

from judder.emulator.clock import VirtualClock, WallClock
from judder.emulator.controllers import MachineI2C, PeripheryI2C, RemoteBus
from judder.emulator.i2c import I2CBus
from judder.emulator.lis3dh import ADDRESS as LIS3DH_ADDRESS
from judder.emulator.lis3dh import LIS3DH
from judder.emulator.machine import Machine
from judder.emulator.notecard import ADDRESS, Notecard, NotecardI2C, WebResponse
from judder.emulator.transports import I2CSocket, Pty

MS = 1_000_000
DEVICE = Path(__file__).parents[2] / "device"


def answer(request):
    return WebResponse(200, b"{}")


# --- 100,000 transactions ---------------------------------------------------------------------------------------------


def sealed(sequence):
    """A request of a client that wraps its sequence number at 16 bits, as note-c does."""
    body = b'{"req":"echo","text":"x"}'
    return body[:-1] + b',"crc":"%04X:%08X"}\n' % (sequence & 0xFFFF, zlib.crc32(body))


def exchange(card, sequence):
    """One transaction."""
    card.feed(sealed(sequence))
    card.clock.sleep(10 * MS)
    reply = card.read(card.available())
    at = reply.rindex(b',"crc":"')
    assert reply[at + 8 : at + 12] == b"%04X" % (sequence & 0xFFFF)
    assert reply[at + 13 : at + 21] == b"%08X" % zlib.crc32(reply[:at] + b"}")
    assert card.available() == 0


def emulator_bytes():
    """What the emulator's own lines have allocated and still hold, since tracing began."""
    gc.collect()
    traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/judder/emulator/*")])
    return sum(trace.size for trace in traces.traces)


@pytest.mark.slow
def test_100000_transactions_of_a_client_that_wraps_its_sequence_number():
    card = Notecard(VirtualClock(), answer, hub={"mode": "continuous"}, connect_delay_ns=0, latency_ns=0)
    for sequence in range(1000):
        exchange(card, sequence)
    tracemalloc.start()
    try:
        exchange(card, 1000)
        before = emulator_bytes()
        for sequence in range(1001, 20_000):
            exchange(card, sequence)
        after = emulator_bytes()
    finally:
        tracemalloc.stop()
    for sequence in range(20_000, 100_000):
        exchange(card, sequence)
    assert after - before < 2000  # in 19,000 transactions
    assert card.executed["echo"] == 100_000  # none taken for a repetition
    assert not card.replayed
    assert not card.bugs
    card.clock.sleep(10 * MS)
    assert card.available() == 0  # no reply too many


@pytest.mark.slow
def test_transactions_across_the_wrap_on_both_transports(serial_port, i2c_socket):
    for sequence in range(60_000, 70_000):
        os.write(serial_port, sealed(sequence))
        assert b'"crc":"%04X:' % (sequence & 0xFFFF) in read_lines(serial_port, b"\r\n")
    with RemoteBus(i2c_socket) as bus:
        controller = MachineI2C(bus)
        for sequence in range(63_000, 68_000):
            line = sealed(sequence)
            controller.writeto(ADDRESS, bytes([len(line)]) + line)
            assert b'"crc":"%04X:' % (sequence & 0xFFFF) in read_until(controller, b"\r\n")


def read_until(controller, wanted, patience_s=10):
    found, give_up = b"", time.monotonic() + patience_s
    available = 0
    while wanted not in found:
        assert time.monotonic() < give_up, found
        controller.writeto(ADDRESS, bytes([0, available]), False)
        data = controller.readfrom(ADDRESS, available + 2)
        available = data[0]
        found += data[2 : 2 + data[1]]
    return found


@pytest.fixture
def note_python(monkeypatch):
    """The unmodified library in this process, on a bench whose clock it waits on."""
    clock = VirtualClock()
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.sleep(round(seconds * 1e9)))
    card = Notecard(clock, answer, hub={"mode": "continuous"}, connect_delay_ns=0)
    bus = I2CBus(clock)
    bus.attach(ADDRESS, NotecardI2C(card))
    return card, notecard.OpenI2C(PeripheryI2C(bus), 0, 0)


@pytest.mark.slow
def test_note_python_fails_at_transaction_65536_as_known(note_python):
    """It does not wrap its sequence number (facts: measured with a card that echoes four digits)."""
    card, client = note_python
    for _ in range(65_536):
        client.Transaction({"req": "card.time"})
    assert card.executed["card.time"] == 65_536
    with pytest.raises(Exception, match="Failed to transact"):
        client.Transaction({"req": "card.time"})
    card.echo_digits = 8  # a card that echoed all digits would not show it
    assert client.Transaction({"req": "card.time"})["time"]


def test_the_firmware_renews_its_notecard_object_before_that():
    namespace = {}
    line = next(line for line in (DEVICE / "node" / "uplink.py").read_text().splitlines() if "RENEW_AFTER =" in line)
    exec(line, namespace)  # the module itself needs a board
    requests_a_post, post_attempts = 40, 3
    assert namespace["RENEW_AFTER"] + requests_a_post * post_attempts < 65_536


# --- garbage ----------------------------------------------------------------------------------------------------------

PUT = b'{"req":"card.binary.put","cobs":20}\n'
garbage = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.sampled_from(
            [PUT, b'{"req":', b"\n", b"\r\n", b"}" * 50, b'{"req":"web.post"}\n', b"[" * 5000, b"\xff" * 400]
        ),
    ),
    max_size=8,
)


def read_lines(fd, until, patience_s=10):
    found = b""
    while until not in found:
        ready, _, _ = select.select([fd], [], [], patience_s)
        assert ready, found
        found += os.read(fd, 65536)
    return found


def resynchronise(write, read_lines_until):
    """A stream that was announced is ended by a newline, what is left of a line by another."""
    write(b"\n\n")
    write(b'{"req":"card.version","id":4711}\n')
    line = next(line for line in read_lines_until(b"4711").splitlines() if b"4711" in line)
    assert json.loads(line)["device"].startswith("dev:")


@pytest.fixture(scope="module")
def serial_port():
    card = Notecard(WallClock(), answer, connect_delay_ns=0, latency_ns=0, request_ns=0)
    with Pty(card) as running:
        fd = os.open(running.path, os.O_RDWR | os.O_NOCTTY)
        yield fd
        os.close(fd)


@settings(max_examples=40, deadline=None)
@given(garbage)
def test_garbage_on_serial_is_survived(serial_port, pieces):
    for piece in pieces:
        os.write(serial_port, piece)
        while select.select([serial_port], [], [], 0)[0]:  # or both buffers fill up
            os.read(serial_port, 65536)
    resynchronise(lambda data: os.write(serial_port, data), lambda until: read_lines(serial_port, until))


@pytest.fixture(scope="module")
def i2c_socket(tmp_path_factory):
    card = Notecard(WallClock(), answer, connect_delay_ns=0, latency_ns=0, request_ns=0)
    bus = I2CBus(card.clock)
    bus.attach(ADDRESS, NotecardI2C(card))
    bus.attach(LIS3DH_ADDRESS, LIS3DH(card.clock, Machine.demo()))
    with I2CSocket(bus, tmp_path_factory.mktemp("bus") / "i2c") as running:
        yield running.path


transfers = st.lists(st.tuples(st.binary(max_size=260), st.integers(0, 300)), max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40), transfers, garbage)
def test_garbage_on_the_i2c_socket_is_survived(i2c_socket, raw, transfers, pieces):
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(i2c_socket))
    client.sendall(raw)  # a client that does not even speak the stream
    client.close()
    with RemoteBus(i2c_socket) as bus:
        controller = MachineI2C(bus)

        def write(data):
            for start in range(0, len(data), 250):
                part = data[start : start + 250]
                controller.writeto(ADDRESS, bytes([len(part)]) + part)

        for written, length in transfers:
            try:
                controller.writeto(ADDRESS, written)
                controller.readfrom(ADDRESS, length)
            except OSError:
                pass  # refused: fine
        for piece in pieces:
            write(piece)
        resynchronise(write, lambda wanted: read_until(controller, wanted))


# --- several users of one bus -----------------------------------------------------------------------------------------


def test_sensor_reads_during_a_transfer_to_the_notecard_disturb_neither(note_python):
    """Between any two bus transfers of note-python somebody reads the LIS3DH."""
    card, _ = note_python
    bus = I2CBus(card.clock)
    sensor = LIS3DH(card.clock, Machine.demo())
    bus.attach(ADDRESS, NotecardI2C(card))
    bus.attach(LIS3DH_ADDRESS, sensor)
    controller = MachineI2C(bus)
    controller.writeto_mem(LIS3DH_ADDRESS, 0x20, b"\x97")  # 1344 Hz
    controller.writeto_mem(LIS3DH_ADDRESS, 0x24, b"\x40")  # FIFO
    controller.writeto_mem(LIS3DH_ADDRESS, 0x2E, b"\x80")  # stream
    read = bytearray()

    class Interleaved(PeripheryI2C):
        def transfer(self, address, messages):
            super().transfer(address, messages)
            assert controller.readfrom_mem(LIS3DH_ADDRESS, 0x0F, 1) == b"\x33"
            (level,) = controller.readfrom_mem(LIS3DH_ADDRESS, 0x2F, 1)
            waiting = level & 0x1F
            if waiting:
                read.extend(controller.readfrom_mem(LIS3DH_ADDRESS, 0xA8, 6 * waiting))

    client = notecard.OpenI2C(Interleaved(bus), 0, 0)
    data = bytearray(bytes(range(256)) * 40)
    for _ in range(3):
        binary_helpers.binary_store_reset(client)
        binary_helpers.binary_store_transmit(client, data, 0)
        assert binary_helpers.binary_store_receive(client, 0, len(data)) == data
    assert len(read) > 6000
    assert read.endswith(b"".join(sample for _, sample in sensor.given))


READER = """
import select, sys
from judder.emulator.controllers import MachineI2C, RemoteBus
with RemoteBus(sys.argv[1]) as bus:
    controller = MachineI2C(bus)
    assert controller.scan() == [0x17, 0x18]
    while not select.select([sys.stdin], [], [], 0)[0]:
        assert controller.readfrom_mem(0x18, 0x0F, 1) == b"\\x33"
"""


@pytest.mark.slow
def test_programs_that_share_the_socket_do_not_disturb_each_other(i2c_socket, monkeypatch):
    """Two processes read the sensor while note-python moves data through the Notecard."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 25))
    command = [sys.executable, "-c", READER, str(i2c_socket)]
    readers = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(2)]
    with RemoteBus(i2c_socket) as bus:
        client = notecard.OpenI2C(PeripheryI2C(bus), 0, 0)
        data = bytearray(bytes(range(256)) * 100)
        for _ in range(5):
            assert [reader.poll() for reader in readers] == [None, None]
            binary_helpers.binary_store_reset(client)
            binary_helpers.binary_store_transmit(client, data, 0)
            assert binary_helpers.binary_store_receive(client, 0, len(data)) == data
    for reader in readers:
        reader.communicate()
    assert [reader.returncode for reader in readers] == [0, 0]


def test_a_hundred_clients_may_come_at_once(i2c_socket):
    seen = []

    def probe():
        with RemoteBus(i2c_socket) as bus:
            seen.append(MachineI2C(bus).readfrom_mem(LIS3DH_ADDRESS, 0x0F, 1))

    threads = [threading.Thread(target=probe) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"\x33"] * 100


# --- controllers ------------------------------------------------------------------------------------------------------


def test_controllers_say_what_is_wrong(i2c_socket, tmp_path):
    with RemoteBus(i2c_socket) as bus:
        with pytest.raises(OSError, match="0x19: nobody answers"):
            MachineI2C(bus).readfrom(0x19, 1)
        with pytest.raises(OSError, match="0x17: data refused"):
            MachineI2C(bus).writeto(ADDRESS, b"\x09a")
    with pytest.raises(OSError, match="No such file"):
        RemoteBus(tmp_path / "none")


def test_the_socket_s_stream_is_what_the_manual_says(i2c_socket):
    """Byte by byte, for clients in other languages."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(i2c_socket))
    client.sendall(struct.pack("<BBHH", ord("T"), LIS3DH_ADDRESS, 1, 1) + b"\x0f")
    assert client.recv(10) == b"\0\x01\0\x33"
    client.close()
