"""judder on the board: capture a window, keep it, send it, for ever.

Nothing that fails ends the program: it is reported in one line, and tried again after a pause. This is the only file
that knows pins.
"""

import gc
import os

from node import clock, frame, settings

gc.collect()  # what compiling leaves behind, here and below: or the modules lie scattered over the heap
from node.accelerometer import SLOW_ODR_HZ, UNRELIABLE, Accelerometer, capture
from node.bus import NOTECARD_HZ, SENSOR_HZ, Bus, PartError

gc.collect()
from node import signature
from node.ring import Ring
from node.uplink import LinkError, RefusedError, Uplink
from node.window import SLOW_BUS, Window
from safemode import FILE as RECOVERIES_FILE

gc.collect()

FIRMWARE = "judder 0.1.0"
RING_FILE = "ring.bin"
REFUSALS = 3  # how often a frame is offered again to a server that refuses it
BUS_TESTS = 3  # that 400 kHz has to fail before the board falls back
PAUSE_S = 5
LONGEST_PAUSE_S = 600
TIME_EVERY_S = 3600
WATCH_SHARE = 4  # the watchdog is renewed in every fourth part of its time
LONGEST_IDLE_US = 10000000


def open_i2c(frequency):
    try:
        import board
        import busio
    except ImportError:
        import machine  # pyright: ignore[reportMissingImports]

        return machine.I2C(1, freq=frequency)
    return busio.I2C(board.SCL, board.SDA, frequency=frequency)


def open_ring(capacity_bytes):
    """The ring with its file, which `judder deploy` makes. In RAM only without one, or while the PC owns the drive."""
    try:
        file = open(RING_FILE, "r+b")  # noqa: SIM115  # for good: to close it would change the drive's directory
    except OSError:
        return Ring(capacity_bytes)
    ring = Ring(capacity_bytes, file, getattr(os, "sync", file.flush))
    ring.recover()
    if len(ring):
        print("%d windows of earlier starts in %s" % (len(ring), RING_FILE))
    return ring


class Pause:
    """Grows with each failure in a row, from PAUSE_S to LONGEST_PAUSE_S, each time by a random part."""

    def __init__(self):
        self._failures = 0
        self.until_us = 0

    def failed(self):
        longest = min(LONGEST_PAUSE_S, PAUSE_S << min(self._failures, 10))
        seconds = longest // 2 + os.urandom(1)[0] * longest // 512
        self._failures += 1
        self.until_us = clock.now_us() + seconds * 1000000
        return seconds

    def worked(self):
        self._failures = 0
        self.until_us = 0


class Node:
    """The board's parts and what they are doing."""

    def __init__(self, values, open_bus=open_i2c):
        self.settings = values
        self.bus = Bus(open_bus)
        self.uplink = Uplink(self.bus, values)
        self.ring = open_ring(values.ring_bytes)
        self.calendar = clock.Calendar()
        self.window = Window(values.samples)
        self.window.boot = int.from_bytes(os.urandom(4), "little")
        self.accelerometer = None
        self.identity = None
        self.frame = bytearray(0)
        self.odr_hz = values.odr_hz
        self.capture_pause = Pause()
        self.link_pause = Pause()
        self.watch_pause = Pause()
        self.spill_pause = Pause()
        self.next_capture_us = clock.now_us()
        self.capture_began_us = 0
        self.next_watch_us = 0
        self.next_time_us = 0
        self.updates_held = True
        self.watch_refused = False
        self.well = False
        self.spill_due = False

    def run(self):
        while True:
            self.step()

    def stop(self):
        """Leave parts and bus to whoever is at the console; the Notecard is not to reset them at their work."""
        try:
            if self.settings.watchdog_s:
                self.uplink.leave()
        except (Exception, KeyboardInterrupt):  # noqa: S110  # no Notecard, most likely, or somebody in a hurry
            pass
        self.bus.deinit()
        try:
            self._spill()
        except (Exception, KeyboardInterrupt) as error:
            print(describe(error))

    def step(self):
        """Do the one thing that is due, or sleep until something is."""
        now_us = clock.now_us()
        action = self._due(now_us)
        if action is None:
            clock.sleep_ms(self._idle_ms(now_us))
            return
        pause = self._pause_after(action)
        try:
            action()
            pause.worked()
        except Exception as error:  # whatever it is: the board is on its own
            seconds = pause.failed()
            self.spill_due = self.spill_due or action == self._send
            try:
                print("%s; %d waiting, next try in %d s" % (describe(error), len(self.ring), seconds))
            except Exception:  # out of memory, most likely: a constant text needs none
                print("an error that could not be reported; going on")

    def _due(self, now_us):
        link_free = now_us >= self.link_pause.until_us
        if self.identity is None:
            return self._connect if link_free else None
        capture_due = now_us >= max(self.next_capture_us, self.capture_pause.until_us)
        capture_due = capture_due and self.ring.has_room(len(self.frame))
        if self._watch_due(now_us, capture_due):
            return self._watch
        if capture_due:
            return self._capture
        if self.spill_due and now_us >= self.spill_pause.until_us:
            return self._spill
        if not link_free:
            return None
        if len(self.ring):
            return self._send
        if self.updates_held:
            return self._allow_updates
        if now_us >= self.next_time_us:
            return self._learn_time
        return None

    def _watch_due(self, now_us, capture_due):
        """Whatever the link does; only a capture goes first, and only one."""
        if not self.settings.watchdog_s or now_us < max(self.next_watch_us, self.watch_pause.until_us):
            return False
        return not capture_due or self.capture_began_us >= self.next_watch_us

    def _pause_after(self, action):
        if action == self._capture:
            return self.capture_pause
        if action == self._spill:
            return self.spill_pause
        return self.watch_pause if action == self._watch else self.link_pause

    def _idle_ms(self, now_us):
        wait_us = LONGEST_IDLE_US
        for due_us in (
            self.next_capture_us,
            self.capture_pause.until_us,
            self.next_watch_us,
            self.watch_pause.until_us,
            self.spill_pause.until_us,
            self.link_pause.until_us,
            self.next_time_us,
        ):
            if due_us > now_us:
                wait_us = min(wait_us, due_us - now_us)
        return wait_us // 1000 + 1

    def _connect(self):
        self.uplink.connect()
        self.uplink.sign_with(signature.find_signer(self.uplink, self.settings.frame_key))
        self._watch()
        self._learn_time()
        identity = frame.text_block(
            self.uplink.device, FIRMWARE, "", self.settings.hash, self.settings.label, self.settings.session
        )
        self.frame = bytearray(frame.max_length(self.settings.samples, len(identity)))
        self.identity = identity  # last: with it the board counts as connected
        print("%s is %s on Notecard %s" % (FIRMWARE, self.uplink.device, self.uplink.card_version))
        for complaint in self.uplink.complaints:
            print(complaint)

    def _watch(self):
        """Arm or renew the Notecard's watchdog, or call it off. One that refuses is named once, and we go on."""
        watchdog_s = self.settings.watchdog_s
        try:
            self.uplink.watch(watchdog_s)
        except RefusedError as error:
            if watchdog_s and not self.watch_refused:
                print("%s: no watchdog; a newer Notecard firmware may have it, WATCHDOG_S = 0 asks for none" % error)
            self.watch_refused = True
        self.next_watch_us = clock.now_us() + watchdog_s * (1000000 // WATCH_SHARE)

    def _learn_time(self):
        before_us = clock.now_us()
        utc_s = self.uplink.utc_s()
        if utc_s is not None:
            self.calendar.learn(utc_s, before_us, clock.now_us())
        wait_s = TIME_EVERY_S if utc_s is not None else PAUSE_S
        self.next_time_us = clock.now_us() + wait_s * 1000000

    def _allow_updates(self):
        self.uplink.hold_updates(False)
        self.updates_held = False

    def _hold_updates(self):
        """Before a window exists that an update would wipe out. A Notecard that does not answer cannot update us."""
        if not self.updates_held:
            try:
                self.uplink.hold_updates(True)
                self.updates_held = True
            except LinkError as error:
                print("%s; capturing all the same" % error)

    def _capture(self):
        self.capture_began_us = clock.now_us()
        self._hold_updates()
        if self.accelerometer is None:
            self._find_accelerometer()
        filled = self.window
        try:
            tries = capture(self.accelerometer, filled, self.odr_hz, self.settings.full_scale_g)
        except OSError:
            self.accelerometer = None
            raise
        if self.bus.sensor_hz == NOTECARD_HZ:
            filled.flags |= SLOW_BUS
        filled.started_at_us, filled.started_at_uncertainty_ms = self.calendar.utc_us(filled.first_sample_us)
        length = frame.encode(filled, self.identity, self.frame)
        key = (filled.boot, filled.sequence)
        filled.sequence += 1  # first: whatever fails from here on, no other window gets this key
        self.ring.put(key, bytes(memoryview(self.frame)[:length]))
        self._schedule()
        report_window(key, filled, tries, length)

    def _schedule(self):
        """The next capture keeps the rhythm of the first; beats that were missed are left out."""
        every_us = self.settings.capture_every_s * 1000000
        late_us = clock.now_us() - self.next_capture_us
        self.next_capture_us += every_us * (late_us // every_us + 1)

    def _find_accelerometer(self):
        """Fast bus if it is reliable; otherwise the slow one and a rate that it can carry."""
        address = self.settings.sensor_address
        self.bus.sensor_hz = SENSOR_HZ
        self.odr_hz = self.settings.odr_hz
        for _ in range(BUS_TESTS):
            try:
                accelerometer = Accelerometer(self.bus, address)
                if accelerometer.answers_reliably():
                    self.accelerometer = accelerometer
                    return
            except OSError:
                pass
        self.bus.sensor_hz = NOTECARD_HZ
        self.accelerometer = Accelerometer(self.bus, address)
        self.odr_hz = min(self.settings.odr_hz, SLOW_ODR_HZ)
        print(UNRELIABLE % self.odr_hz)

    def _send(self):
        batch = self.ring.oldest(self.settings.post_bytes)
        stored, refused = self.uplink.post([one for _, one in batch])
        released = refusals = 0
        for key in stored:
            if self.ring.release(key):
                released += 1
                print("window %08x:%d stored" % key)
        for boot, sequence, reason in refused:
            refusals += self._refused((boot, sequence), reason)
        if clock.now_us() >= self.next_time_us:  # the link has just worked, and there may be no other moment
            self._learn_time()
        if released and not self.well:
            self.well = True
            forget_recoveries()
        if not released:  # a pause, or the same bytes would go out again at once
            said = "refuses" if refusals else "names none of"
            raise LinkError("the server's answer %s the %d windows sent" % (said, len(batch)))

    def _spill(self):
        """The link is down, for who knows how long: what waits in RAM is to outlive a power cut."""
        self.spill_due = False
        moved = self.ring.spill()
        if moved:
            print("%d windows moved to %s, %d in RAM" % (moved, RING_FILE, self.ring.in_ram()))

    def _refused(self, key, reason):
        """Offer a refused frame a few times more, behind the others; then give it up. False if it is none of ours."""
        refusals = self.ring.refuse(key)
        if not refusals:
            return False
        print("window %08x:%d refused by the server: %s" % (key[0], key[1], reason))
        if refusals >= REFUSALS:
            self.ring.release(key)
            print("window %08x:%d given up after %d refusals" % (key[0], key[1], REFUSALS))
        return True


def forget_recoveries():
    """A window has arrived: safemode.py may get the board up again as often as at first."""
    try:
        os.remove(RECOVERIES_FILE)
    except OSError:  # there was none
        pass


def report_window(key, filled, tries, length):
    rate = "unknown rate"
    if filled.interval_ns:
        centihertz = 100000000000 // filled.interval_ns
        rate = "%d.%02d Hz" % (centihertz // 100, centihertz % 100)
    print(
        "window %08x:%d captured: %d samples at %s, %d lost, %d tries, %d bytes"
        % (key[0], key[1], filled.samples, rate, filled.samples_lost, tries, length)
    )


def describe(error):
    """One line on what is wrong and what to do."""
    if isinstance(error, (LinkError, PartError)):
        return str(error)
    if isinstance(error, OSError):
        return "I2C or sensor: %s: check Qwiic cable and address" % (error.args[-1] if error.args else error)
    return "%s: %s" % (type(error).__name__, error)


def budget(values):
    """Monthly data at these settings if every window took 2.4 bytes a sample and 1 kB for its connection."""
    monthly_bytes = (values.samples * 12 // 5 + 1024) * (2592000 // values.capture_every_s)
    return "%d samples every %d s: about %d MB a month" % (
        values.samples,
        values.capture_every_s,
        (monthly_bytes + 999999) // 1000000,
    )


def selftest():
    """What this board measures of itself; for the console and judder doctor."""
    from node import selftest as tests

    return tests.run(open_i2c, describe)


def stop(node):
    waiting = 0
    if node is not None:
        node.stop()
        waiting = node.ring.in_ram()
    lost = "; windows not sent yet, and lost: %d" % waiting if waiting else ""
    print("stopped at the console%s" % lost)


def main():
    print("%s starts" % FIRMWARE)
    pause_s = 0
    while True:
        node = None
        try:
            clock.sleep_ms(pause_s * 1000)
            values = settings.load()
            for complaint in values.complaints:
                print(complaint)
            print(budget(values))
            node = Node(values)
            node.run()
        except KeyboardInterrupt:
            stop(node)
            return
        except Exception as error:
            print("cannot start: %s; SAMPLES and RING_BYTES decide how much memory is needed" % describe(error))
            pause_s = PAUSE_S


if __name__ == "__main__":
    main()
