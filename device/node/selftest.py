"""What the board measures of itself: `import main; main.selftest()` on the console, or `judder doctor`.

Each figure is one line `name = value unit`; what is wrong is one line with what to do, the same that the
firmware prints. It settles points that docs/hardware.md lists as unproven. The firmware must not be running meanwhile.
"""

import gc
import os

from node import clock, frame, settings, signature
from node.accelerometer import SLOW_ODR_HZ, UNRELIABLE, Accelerometer, capture
from node.bus import NOTECARD_HZ, SENSOR_HZ, Bus
from node.uplink import LinkError, Uplink
from node.window import UNKNOWN_LOSS, Window

CALLS = 200
RATE_TOLERANCE = 10  # percent; real parts are 2 to 3 off


def run(open_bus, describe, values=None):
    """Measure everything; returns how many parts something is wrong with.

    `open_bus(frequency)` makes the board's I2C; `describe(error)` makes a line of an exception.
    """
    values = values or settings.load()
    said = set()
    _say(values.complaints, said)
    bus = Bus(open_bus)
    failed = 0
    for part in (_memory, _clock, _scan, _sensor, _notecard):
        gc.collect()
        try:
            troubles = part(bus, values) or ()
        except Exception as error:  # the next part may still have something to tell
            troubles = (describe(error),)
        failed += 1 if troubles else 0
        _say(troubles, said)
    bus.deinit()
    print("selftest: %s" % ("all well" if not failed else "%d parts failed" % failed))
    return failed


def _say(lines, said):
    for line in lines:
        if line not in said:
            print(line)
        said.add(line)


def figure(name, value, unit):
    print("%s = %s %s" % (name, value, unit))


def _memory(bus, values):
    started_us = clock.now_us()
    gc.collect()
    figure("gc_collect", (clock.now_us() - started_us) // 1000, "ms")
    if hasattr(gc, "mem_free"):
        figure("heap_free", gc.mem_free() // 1024, "KB")  # pyright: ignore
    try:
        drive = os.statvfs("/")
        figure("flash_free", drive[0] * drive[3] // 1024, "KB")
    except (AttributeError, OSError):
        pass


def _clock(bus, values):
    shortest_us = 1000000
    for _ in range(100):
        before_us = clock.now_us()
        after_us = clock.now_us()
        while after_us == before_us:
            after_us = clock.now_us()
        shortest_us = min(shortest_us, after_us - before_us)
    figure("clock_step", shortest_us, "us")
    started_us = clock.now_us()
    for _ in range(20):
        clock.sleep_ms(5)
    figure("sleep_of_5_ms", (clock.now_us() - started_us) // 20, "us")


def _scan(bus, values):
    found = bus.scan()
    figure("i2c_answers", " ".join(["0x%02x" % address for address in found]) or "nobody", "")


def _sensor(bus, values):
    bus.sensor_hz = NOTECARD_HZ
    accelerometer = Accelerometer(bus, values.sensor_address)
    bus.sensor_hz = SENSOR_HZ
    reliable = accelerometer.answers_reliably()
    figure("i2c_at_400_khz", "reliable" if reliable else "not reliable", "")
    odr_hz = values.odr_hz
    if not reliable:
        bus.sensor_hz = NOTECARD_HZ
        odr_hz = min(odr_hz, SLOW_ODR_HZ)
        print(UNRELIABLE % odr_hz)
    _level_reads(accelerometer)
    figure("fifo_empty_flag", _empty_flag(accelerometer, odr_hz, values.full_scale_g), "")
    window = Window(values.samples)
    tries = capture(accelerometer, window, odr_hz, values.full_scale_g)
    figure("odr_nominal", odr_hz, "Hz")
    if window.interval_ns:
        centihertz = 100000000000 // window.interval_ns
        figure("odr_measured", "%d.%02d" % (centihertz // 100, centihertz % 100), "Hz")
    figure("samples_lost", window.samples_lost, "of %d in %d tries" % (window.samples, tries))
    identity = frame.text_block("selftest", "", "", "", "", "")
    out = bytearray(frame.max_length(window.samples, len(identity)))
    started_us = clock.now_us()
    length = frame.encode(window, identity, out)
    figure("encode", (clock.now_us() - started_us) // 1000, "ms")
    figure("frame", length, "bytes")
    _sign(memoryview(out)[:length])
    return _rate_troubles(window)


def _sign(encoded):
    if not signature.works():
        figure("sign", "impossible: this runtime has no AES that works", "")
        return
    signer = signature.Signer(bytes(16), "selftest")
    started_us = clock.now_us()
    list(signer.pieces([encoded]))
    figure("sign", (clock.now_us() - started_us) // 1000, "ms")


def _level_reads(accelerometer):
    longest_us = 0
    started_us = before_us = clock.now_us()
    for _ in range(CALLS):
        accelerometer.fifo_level()
        after_us = clock.now_us()
        longest_us = max(longest_us, after_us - before_us)
        before_us = after_us
    figure("level_read", (before_us - started_us) // CALLS, "us")
    figure("level_read_longest", longest_us, "us")


def _empty_flag(accelerometer, odr_hz, full_scale_g):
    """When FIFO_SRC says that the FIFO is empty: ST's AN3308 has it rise only after one read too many."""
    counts = Window(64).counts
    accelerometer.start(odr_hz, full_scale_g)
    clock.sleep_ms(1 + 4000 // odr_hz)
    accelerometer.stop()  # nothing comes in any more
    level = accelerometer.fifo_level()
    if not level:
        return "not seen: no sample came"
    accelerometer.read_into(counts, 0, level)
    if accelerometer.fifo_is_empty():
        return "with the last sample"
    accelerometer.read_into(counts, 0, 1)
    return "one read later" if accelerometer.fifo_is_empty() else "not even one read later"


def _rate_troubles(window):
    """A line if the rate is far from what was asked for, or samples were lost in the last try too."""
    measured_hz = 1e9 / window.interval_ns if window.interval_ns else 0
    percent = measured_hz * 100 / window.odr_hz - 100
    if not window.samples_lost and abs(percent) <= RATE_TOLERANCE:
        return ()
    lost = "an unknown number of" if window.samples_lost == UNKNOWN_LOSS else window.samples_lost
    return (
        "asked %d Hz, measured %d Hz (%+.1f %%), %s samples lost: lower ODR_HZ; if that is no help, replace the LIS3DH"
        % (window.odr_hz, measured_hz + 0.5, percent, lost),
    )


def _notecard(bus, values):
    uplink = Uplink(bus, values)
    started_us = clock.now_us()
    uplink.connect()
    figure("notecard_firmware", uplink.card_version, "")
    figure("notecard_set_up", (clock.now_us() - started_us) // 1000, "ms")
    figure("device", uplink.device, "")
    figure("signature", "on" if signature.find_signer(uplink, values.frame_key) else "off", "")
    status = uplink.request({"req": "hub.status"})
    figure("notecard_connected", "yes" if status.get("connected") else "not yet", status.get("status", ""))
    figure("notecard_crc", status.get("crc", "none"), "of the reply")
    figure("env_modified", _answer(uplink, {"req": "env.modified", "time": 0xFFFFFFF}), "")
    body = bytes(range(256)) * 32  # two chunks
    started_us = clock.now_us()
    uplink.stage(lambda: [body])
    figure(
        "binary_transfer", len(body) * 1000 // max(1, (clock.now_us() - started_us) // 1000), "bytes/s, in two chunks"
    )
    figure("wrong_offset", _wrong_offset(uplink, len(body)), "")
    figure("notecard_errors", _answer(uplink, {"req": "card.no-such-request"}), "")
    return uplink.complaints


def _answer(uplink, request):
    """What the Notecard says, be it an error."""
    try:
        return uplink.request(request)
    except LinkError as error:
        return error


def _wrong_offset(uplink, length):
    """Whether a chunk is refused that does not begin where the store ends."""
    try:
        uplink.put_chunk(b"chunk", length - 1)
        held = uplink.request({"req": "card.binary"}).get("length", 0)
    except LinkError as error:
        return "refused: %s" % error
    finally:
        uplink.request({"req": "card.binary", "delete": True})
    return "refused" if held == length else "taken: the store has %d bytes of %d" % (held, length)
