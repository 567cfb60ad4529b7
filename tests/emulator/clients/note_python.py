"""A program that uses an unmodified note-python on the emulated Notecard: `note_python.py pty|i2c PATH`.

It runs with whichever note-python is on its path, checks what it gets back, and prints what it saw as JSON. Waiting
takes a 25th of the time: the pauses are for hardware that is slower than this.
"""

import base64
import hashlib
import json
import sys
import time

import notecard
import serial
from notecard import binary_helpers, dfu, env, hub, note, web
from pattern import SIZES, pattern

from judder.emulator.controllers import PeripheryI2C, RemoteBus

CHUNK = 40_000

real_sleep = time.sleep
time.sleep = lambda seconds: real_sleep(seconds / 25)


def until(ask, wanted, patience_s=20):
    give_up = time.monotonic() + patience_s
    while not wanted(reply := ask()):
        assert time.monotonic() < give_up, reply
        real_sleep(0.02)
    return reply


def connect():
    kind, path = sys.argv[1:]
    if kind == "pty":
        return notecard.OpenSerial(serial.Serial(path, 115200, timeout=10))
    return notecard.OpenI2C(PeripheryI2C(RemoteBus(path)), 0, 0)


def binary(card):
    """Each size there and back, and to the server."""
    for size in SIZES:
        data = bytearray(pattern(size))
        binary_helpers.binary_store_reset(card)
        binary_helpers.binary_store_transmit(card, data, 0)
        assert binary_helpers.binary_store_decoded_length(card) == size
        assert binary_helpers.binary_store_receive(card, 0, size) == data
        post(card, f"/binary/{size}")
    binary_helpers.binary_store_reset(card)
    for start in range(0, 100_000, CHUNK):
        binary_helpers.binary_store_transmit(card, bytearray(pattern(100_000)[start : start + CHUNK]), start)
    post(card, "/chunked/100000")
    assert binary_helpers.binary_store_receive(card, 99_990, 10) == pattern(100_000)[-10:]


def post(card, name):
    reply = card.Transaction({"req": "web.post", "route": "ingest", "name": name, "binary": True, "seconds": 10})
    assert reply["result"] == 200, reply


def uploads(card):
    from notecard import upload

    done = upload.upload(card, bytearray(pattern(150_000)), "ingest", target="/upload/150000", max_chunk_size=60_000)
    assert done["chunks"] == 3, done


def small(card):
    """Requests without binary data, through the library's own functions."""
    assert web.get(card, route="ingest", name="/get")["body"] == {"a": 1}
    assert web.post(card, route="ingest", name="/body", body={"b": [1, 2]})["body"] == {"a": 1}
    payload = base64.b64encode(pattern(500)).decode()
    assert web.post(card, route="ingest", name="/payload", payload=payload)["result"] == 200
    env.default(card, name="label", text="idle")
    assert env.get(card, name="Label")["text"] == "idle"
    until(lambda: env.get(card), lambda reply: reply["body"].get("odr_hz") == "400")
    assert env.modified(card)["time"] > 0
    note.template(card, file="data.qo", body={"rms": 14.1, "n": 12})
    assert note.add(card, file="data.qo", body={"rms": 0.5, "n": 7}, sync=True)["template"] is True
    arrived = until(lambda: note.get(card, file="capture.qi", delete=True), lambda reply: "body" in reply)
    assert arrived["body"] == {"id": 1}
    assert "{note-noexist}" in note.get(card, file="capture.qi", delete=True)["err"]


def update(card):
    """Firmware, as note-samples:python-dfu fetches it."""
    about = until(lambda: dfu.status(card, on=True), lambda reply: reply.get("mode") == "ready")["body"]
    hub.set(card, mode="dfu")
    image = b""
    while len(image) < about["length"]:
        length = min(4096, about["length"] - len(image))
        reply = dfu.get(card, offset=len(image), length=length)
        image += base64.b64decode(reply["payload"])
    assert hashlib.md5(image).hexdigest() == about["md5"]
    hub.set(card, mode="dfu-completed")
    assert dfu.status(card, stop=True, status="fine")["mode"] == "completed"
    return len(image)


def main():
    card = connect()
    hub.set(card, product="com.example:pump", mode="continuous", sn="pump 3", sync=True)
    until(lambda: hub.status(card), lambda reply: reply.get("connected"))
    crc = "crc" in card.Transaction({"req": "card.version"})
    binary(card)
    uploads(card)
    small(card)
    print(json.dumps({"crc": crc, "update": update(card)}))


main()
