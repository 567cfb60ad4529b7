"""The board's work: capture a window, keep it, send it, and do what it is asked for from afar; for ever.

Nothing that fails ends it: it is reported in one line, and tried again after a pause.
"""

import gc
import os
import sys

from node import uplink  # first: it takes most room to compile

gc.collect()  # what compiling leaves behind, here and below: or the modules lie scattered over the heap
from node import clock, frame, rice

gc.collect()
from node.accelerometer import SLOW_ODR_HZ, UNRELIABLE, Accelerometer, capture
from node.bus import NOTECARD_HZ, SENSOR_HZ, Bus, PartError

gc.collect()
from node.pacing import PAUSE_S, Budget, Pause
from node.policy import ASKED, BEFORE_EVENT, SCHEDULE, choose
from node.report import FIRST_REPORT, Reports
from node.ring import Ring
from node.uplink import HELD_S, PAUSED_S, TRIED_S, DeniedError, LinkError, RefusedError
from node.window import OVERRUN, SLOW_BUS, UNKNOWN_LOSS, Window
from safemode import FILE as RECOVERIES_FILE

gc.collect()

RING_FILE = "ring.bin"
SHORT_POST_BYTES = 4096  # on a bad link a shorter one may get through where a long one never does
REFUSALS = 3  # how often a frame is offered again to a server that refuses it
BUS_TESTS = 3  # that 400 kHz has to fail before the board falls back
KEY_NOTE = "key"
TEXT_BYTES = 128  # of a frame's text block, besides label and session
HEAP_FOR_THE_REST = 30720  # bytes that the ring leaves free
HEAP_TO_SCORE = 8192  # as many more with a model
HEAP_FOR_MODEL = 32768  # its code and a file of 16 KB; a larger file takes more
HEAP_FOR_NODE = 20480  # besides what depends on SAMPLES
RESENT_AT_ONCE = 64  # windows
RESEND_EVERY_S = 300  # a server that asks in each answer gets no more than that
TIME_EVERY_S = 3600
WATCH_SHARE = 4  # the watchdog is renewed in every fourth part of its time
TRIAL_S = 7200
LONGEST_IDLE_US = 10000000


def open_ring(values, lost, buffer):
    """The ring with its file, which `judder deploy` makes. In RAM only without one, or while the PC owns the drive."""
    drops_oldest = values.drop == "oldest"
    try:
        file = open(RING_FILE, "r+b")  # noqa: SIM115  # for good: to close it would change the drive's directory
    except OSError:
        return Ring(values.ring_bytes, None, None, drops_oldest, lost)
    ring = Ring(values.ring_bytes, file, getattr(os, "sync", file.flush), drops_oldest, lost, buffer)
    ring.recover()
    if len(ring):
        print("%d frames of earlier starts in %s" % (len(ring), RING_FILE))
    return ring


def for_objects(heap_bytes):
    """On a runtime whose objects are twice as wide as a board's."""
    return heap_bytes << (sys.maxsize > 0x7FFFFFFF)


def has_room_for_model(values, model_bytes):
    """Beside all that a board without one needs: windows are worth more than their scores."""
    gc.collect()
    needed = for_objects(HEAP_FOR_THE_REST + HEAP_TO_SCORE + HEAP_FOR_MODEL) + HEAP_FOR_NODE
    needed += max(0, model_bytes - HEAP_FOR_MODEL // 2)
    needed += frame.max_length(values.samples, TEXT_BYTES) + 6 * values.samples + values.least_ring_bytes
    return not hasattr(gc, "mem_free") or gc.mem_free() > needed  # pyright: ignore


def let_go(*names):
    """Of modules that are used once in a while: a small heap has better use for their room."""
    node = sys.modules["node"]
    for name in names:
        if "node." + name in sys.modules:
            del sys.modules["node." + name]
            delattr(node, name)


class NoRoomError(Exception):
    """For a window, until some that wait have gone."""


class Node:
    """The board's parts and what they are doing."""

    def __init__(self, values, open_bus, manifest):
        self.settings = values
        self.manifest = manifest
        self.firmware = "judder %s" % manifest.version
        self.budget = Budget(values.daily_kb * 1000)
        # first, or what reading a model leaves lies around
        self.policy = choose(values, self.may_send, lambda size: has_room_for_model(values, size))
        gc.collect()
        self.window = Window(values.samples)
        self.frame = bytearray(frame.max_length(values.samples, TEXT_BYTES + len(values.label) + len(values.session)))
        rice.reserve(values.samples)
        self.bus = Bus(open_bus)
        self.uplink = uplink.Uplink(self.bus, values)
        self.calendar = clock.Calendar()
        self.window.boot = int.from_bytes(os.urandom(4), "little")
        self.reports = Reports(self.window.boot, values.report_every_s)
        self.ring = open_ring(values, self.reports.lose, self.frame)
        self.post_bytes = values.post_bytes  # at most; less while posts fail
        self.accelerometer = None
        self.identity = None
        self.odr_hz = values.odr_hz
        self.capture_pause = Pause()
        self.link_pause = Pause()
        self.watch_pause = Pause()
        self.keep_pause = Pause()
        self.next_capture_us = clock.now_us()
        self.capture_began_us = 0
        self.next_watch_us = 0
        self.next_time_us = 0
        self.next_resend_us = 0
        self.untold = []  # boots before this one, of whose end the server may not know, as node.boots gives them
        self.untold_more = 0
        self.note_kept = True
        self.note_refused = False
        self.told = False
        self.held_s = 0  # for how long outboard updates are held back, as the Notecard was told last
        self.outboard = False  # one waits
        self.offered = False  # a file waits, is being fetched or on trial
        self.update = None
        self.next_hold_us = 0
        self.next_listen_us = 0
        self.heard_s = 0  # what Notehub has set was last changed then
        self.version_told = False
        self.measured = False  # a window of this start was captured
        self.arrived = False  # a frame of this start is stored
        self.watched = False  # the watchdog is armed
        self.settled = False  # what was on trial
        self.trial_until_us = clock.now_us() + TRIAL_S * 1000000
        self.restart_due = False
        self.answer = ()  # request and key of a window that was asked for
        self.watch_refused = False
        self.well = False
        self.spill_due = False

    def run(self):
        while True:
            try:
                self.step()
            except MemoryError:  # before anything was begun; the windows in RAM are worth more than a new start
                gc.collect()
                clock.sleep_ms(1000)

    def stop(self):
        """Leave parts and bus to whoever is at the console; the Notecard is not to reset them at their work."""
        try:
            if self.settings.watchdog_s or self.watched:
                self.uplink.leave()
            if self.identity is not None:
                self._keep_boot_note(self.window.sequence)
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
            self.spill_due = self.spill_due or (action == self._send and pause.failures > 1)
            self.reports.counts["link_failures"] += pause is self.link_pause
            try:
                print("%s; %d waiting, next try in %d s" % (describe(error), len(self.ring), seconds))
            except Exception:  # out of memory, most likely: a constant text needs none
                print("an error that could not be reported; going on")

    def _due(self, now_us):
        link_free = now_us >= self.link_pause.until_us
        if now_us >= self.trial_until_us:
            return self._end_trial
        if self.identity is None:
            return self._connect if link_free else None
        capture_due = now_us >= max(0 if self.window.request else self.next_capture_us, self.capture_pause.until_us)
        capture_due = capture_due and self.ring.has_room(len(self.frame))
        if self._watch_due(now_us, capture_due):
            return self._watch
        if capture_due:
            return self._capture
        if now_us >= self.keep_pause.until_us:
            if now_us >= self.reports.due_us() and not self.ring.holds_report(self.window.boot):
                return self._report
            if self.spill_due and self.ring.worth_spilling():
                return self._spill
        return self._due_on_link(now_us) if link_free else None

    def _due_on_link(self, now_us):
        if now_us >= self.next_hold_us:
            return self._hold
        if self.update is not None:
            return self._fetch_update
        if len(self.ring) and self.may_send() > 0:
            return self._send
        if self.restart_due and not len(self.ring):
            return self._restart
        return self._due_besides(now_us)

    def _due_besides(self, now_us):
        if self.held_s != self._hold_s():
            return self._hold
        if not self.note_kept or (self.told and self.untold):
            return self._renew_boot_note
        if self.answer:
            return self._answer
        if not self.version_told and self.measured and not self.manifest.damage:
            return self._tell_version
        if self.arrived and self.measured and not self.settled:
            return self._settle
        if now_us >= self.next_time_us:
            return self._learn_time
        return self._listen if now_us >= self.next_listen_us else None

    def _watch_due(self, now_us, capture_due):
        """Whatever the link does; only a capture goes first, and only one."""
        if not (self.settings.watchdog_s or self.watched) or now_us < max(
            self.next_watch_us, self.watch_pause.until_us
        ):
            return False
        return not capture_due or self.capture_began_us >= self.next_watch_us

    def may_send(self):
        """Bytes that the day's budget has left."""
        return self.budget.left(self.uplink.posted_bytes)

    def _pause_after(self, action):
        if action == self._capture:
            return self.capture_pause
        if action in (self._report, self._spill, self._end_trial):
            return self.keep_pause
        return self.watch_pause if action == self._watch else self.link_pause

    def _idle_ms(self, now_us):
        wait_us = LONGEST_IDLE_US
        for due_us in (
            self.next_capture_us,
            self.capture_pause.until_us,
            self.next_watch_us,
            self.watch_pause.until_us,
            self.keep_pause.until_us,
            self.link_pause.until_us,
            self.next_time_us,
            self.next_hold_us,
            self.next_listen_us,
            self.reports.due_us(),
        ):
            if due_us > now_us:
                wait_us = min(wait_us, due_us - now_us)
        return wait_us // 1000 + 1

    def _connect(self):
        self.uplink.connect()
        self.held_s = HELD_S
        self.next_hold_us = clock.now_us() + HELD_S * 500000
        from node import boots

        boots.meet(self)
        if self.settings.frame_key or self.uplink.note(KEY_NOTE):
            from node import signature  # only now: a small heap has better use for its room

            self.uplink.sign_with(signature.find_signer(self.uplink, self.settings.frame_key))
        self._watch()
        self._learn_time()
        self._hear_settings()
        identity = self.identify()
        let_go("boots", "remote", "settings")
        self.fit_ring()
        self.identity = identity  # last: with it the board counts as connected
        print("%s is %s on Notecard %s" % (self.firmware, self.uplink.device, self.uplink.card_version))
        for complaint in self.uplink.complaints + self.policy.complaints():
            print(complaint)
        if self.manifest.damage:
            print("%s: judder deploy, or another image; Notehub is told no version" % self.manifest.damage)

    def identify(self):
        """The text block of our frames; the buffer for them is made to fit."""
        model = self.policy.model
        identity = frame.text_block(
            self.uplink.device,
            self.firmware,
            model.id if model is not None else "",
            self.settings.hash,
            self.settings.label,
            self.settings.session,
        )
        length = frame.max_length(self.settings.samples, len(identity) + frame.CLASS_BYTES)
        if length > len(self.frame):
            self.frame = bytearray(length)
        return identity

    def fit_ring(self):
        """The ring's RAM is what the heap has left, at most RING_BYTES; frames in flash take some of the heap, too."""
        gc.collect()
        if not hasattr(gc, "mem_free"):  # a PC
            return
        rest = HEAP_FOR_THE_REST + (HEAP_TO_SCORE if self.policy.model is not None else 0)
        free = gc.mem_free() - for_objects(rest)  # pyright: ignore
        fits = max(self.settings.least_ring_bytes, min(free + self.ring.used_bytes, self.settings.ring_bytes))
        if fits < self.settings.ring_bytes and self.identity is None:
            print("memory has no room for RING_BYTES = %d; using %d" % (self.settings.ring_bytes, fits))
        self.ring.capacity_bytes = fits

    def _keep_boot_note(self, captured=None):
        from node import boots

        boots.keep(self, captured)
        let_go("boots")

    def _renew_boot_note(self):
        """The next boot need not name again what a report of ours has named."""
        self._keep_boot_note()
        if self.told:
            self.untold = []

    def _watch(self):
        """Arm or renew the Notecard's watchdog, or call it off. One that refuses is named once, and we go on."""
        watchdog_s = self.settings.watchdog_s
        try:
            self.uplink.watch(watchdog_s)
            self.watched = watchdog_s > 0
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

    def _hold_s(self):
        """For how long outboard updates are to be held back as things are: not at all when one may come."""
        if len(self.ring):
            return HELD_S
        if self.offered:
            return TRIED_S
        return 0 if self.outboard else PAUSED_S

    def _hold(self, seconds=None):
        seconds = self._hold_s() if seconds is None else seconds
        if not seconds:
            print("an outboard update may begin: no window waits")  # before: it may not come back from the request
        self.uplink.hold_updates(seconds)
        self.held_s = seconds
        self.next_hold_us = clock.now_us() + (seconds or PAUSED_S) * 500000  # half the time

    def _hold_updates(self):
        """Before a window exists that an update would wipe out. A Notecard that does not answer cannot update us."""
        if self.held_s != HELD_S or clock.now_us() >= self.next_hold_us:
            try:
                self._hold(HELD_S)
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
        trigger = self.policy.judge(filled)
        if filled.request:
            if trigger is None:
                self.policy.followed()
            trigger = ASKED
        filled.trigger = BEFORE_EVENT if trigger is None else trigger
        length = frame.encode(filled, self.identity, self.frame)
        what = "window kept back"
        if trigger is None:
            self.policy.hold(memoryview(self.frame)[:length])
        else:
            data = self._copied(length)
            if trigger not in (SCHEDULE, ASKED):
                self._keep_held(length)
                frame.number(data, filled.sequence)
            key = self._keep(data)
            what = "%s captured" % named(key)
            if trigger == ASKED:
                self.answer, filled.request = (filled.request, key), ""
            else:
                self.policy.sent(trigger)
        self.measured = True
        if self.capture_began_us >= self.next_capture_us:
            self._schedule()
        self._count(filled, tries)
        say_captured(what, filled, tries, length)

    def _keep(self, data):
        key = (self.window.boot, self.window.sequence)
        self.window.sequence += 1  # first: whatever fails from here on, no other window gets this key
        self.ring.put(key, data)
        self.spill_due = self.spill_due or self.may_send() <= 0
        return key

    def _keep_held(self, length):
        """What came right before the event goes before it, if the ring has room for all of them."""
        held = self.policy.take_held()
        for i, data in enumerate(held):
            if self.ring.used_bytes + len(data) + length <= self.ring.capacity_bytes:  # nothing is dropped for it
                frame.number(data, self.window.sequence)
                print("%s captured %d before: %d bytes" % (named(self._keep(data)), len(held) - i, len(data)))
                self.policy.followed()

    def _copied(self, length):
        """The frame for the ring. When the heap has no piece for it, the ring has to do with less from now on."""
        while True:
            try:
                return bytearray(memoryview(self.frame)[:length])
            except MemoryError:
                if self.policy.take_held() or self.ring.make_do():
                    continue
                if not self.ring.in_ram():
                    raise
            self.spill_due = True
            self.ring.capacity_bytes = max(self.ring.used_bytes, self.settings.least_ring_bytes)
            raise NoRoomError("memory has no room for more than %d bytes of windows" % self.ring.used_bytes)

    def _count(self, filled, tries):
        counts = self.reports.counts
        counts["retries"] += tries - 1
        counts["overruns"] += filled.flags & OVERRUN > 0
        counts["samples_lost"] += filled.samples_lost if filled.samples_lost != UNKNOWN_LOSS else 0

    def _schedule(self):
        """The next capture keeps the rhythm of the first; beats that were missed are left out."""
        self._skip_missed()
        self.next_capture_us += self.settings.capture_every_s * 1000000

    def _skip_missed(self):
        every_us = self.settings.capture_every_s * 1000000
        missed = max(0, clock.now_us() - self.next_capture_us) // every_us
        self.reports.counts["skipped"] += missed
        self.next_capture_us += missed * every_us

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

    def _report(self):
        self._hold_updates()
        self._skip_missed()
        members = self.uplink.health()
        members["captured"] = self.window.sequence
        members["waiting"] = len(self.ring)
        members["bus_errors"] = self.bus.errors
        members["transactions"] = self.uplink.transactions
        members["posted_bytes"] = self.uplink.posted_bytes
        members["heap_free"] = gc.mem_free() if hasattr(gc, "mem_free") else None  # pyright: ignore
        members.update(self.policy.members())
        members["settings"] = self.settings.changed
        members["settings_refused"] = self.settings.refused or None
        now_us, _ = self.calendar.utc_us(clock.now_us())
        key, data = self.reports.write(self.identity, now_us, members)
        if self.ring.has_room(len(data)):
            self.reports.written()  # first: what `put` drops is for the next one to tell
            try:
                self.ring.put(key, data)
            except MemoryError:
                self.reports.lose(key, "dropped")
                raise
            self.policy.reported()

    def _send(self):
        most_bytes = min(self.post_bytes, self.may_send())
        post_bytes = self.post_bytes
        self.post_bytes = max(SHORT_POST_BYTES, post_bytes // 2)  # unless it arrives
        try:
            stored, refused, missed = self.uplink.post(lambda: (one for _, one in self.ring.oldest(most_bytes)))
        except DeniedError:  # they may be of another Notecard's time, and the next ones not
            self.post_bytes = post_bytes
            self.ring.put_off(most_bytes)
            raise
        self.post_bytes = min(2 * post_bytes, self.settings.post_bytes)
        released = refusals = 0
        for key in stored:
            if self.ring.release(key):
                released += 1
                self.arrived = self.arrived or key[0] == self.window.boot
                print("%s stored" % named(key))
                self.told = self.told or (key[0] == self.window.boot and key[1] >= FIRST_REPORT)  # each names them
        for boot, sequence, reason in refused:
            refusals += self._refused((boot, sequence), reason)
        self._resend(missed)
        if clock.now_us() >= self.next_time_us:  # the link has just worked, and there may be no other moment
            self._learn_time()
        if released and not self.well:
            self.well = True
            forget_recoveries()
        if not released:  # a pause, or the same bytes would go out again at once
            said = "refuses" if refusals else "names none of"
            raise LinkError("the server's answer %s the windows sent" % said)

    def _resend(self, missed):
        """The server misses windows (boot, first, last): have them wait again, or tell which are gone."""
        now_us = clock.now_us()
        if not missed or now_us < self.next_resend_us:
            return
        self.next_resend_us = now_us + RESEND_EVERY_S * 1000000
        keys = []
        for boot, first, last in missed:
            end = FIRST_REPORT if boot != self.window.boot else self.window.sequence
            for sequence in range(max(0, first), min(last + 1, end, first + RESENT_AT_ONCE)):
                if len(keys) < RESENT_AT_ONCE and (boot, sequence) not in keys and 0 <= boot <= 0xFFFFFFFF:
                    keys.append((boot, sequence))
        if keys:
            self._hold_updates()
            gone = self.ring.recall(keys)
            print("the server asks for %d windows again, %d are gone" % (len(keys), len(gone)))
            for key in gone:
                self.reports.lose(key, "gone")

    # --- what Notehub asks for (node/remote.py, node/update.py) ------------------------------------------------------

    def _listen(self):
        self.next_listen_us = clock.now_us() + self.settings.listen_every_s * 1000000
        if self._hear_settings():
            return
        asked, in_queue = (None, False) if self.window.request else self.uplink.asked()
        if asked is not None:
            from node import remote

            remote.heed(self, asked, in_queue)
            let_go("remote", "settings")
        status = self.uplink.optional({"req": "dfu.status"})
        about = status.get("body")
        self.outboard = self.offered = False
        if "ready" in status.get("mode", "") and about and about.get("length"):  # outboard-ready, ready-retry, too
            self._take_offer(about)

    def _hear_settings(self):
        """Whether Notehub's variables have changed, and are in force now."""
        modified_s = self.uplink.optional({"req": "env.modified"}).get("time", 0)
        if modified_s == self.heard_s:
            return False
        from node import remote

        heard = remote.hear(self)
        if self.identity is not None:
            let_go("remote", "settings")
        if heard:
            self.heard_s = modified_s
        return heard

    def _answer(self):
        from node import remote

        remote.answer(self.uplink, *self.answer)
        let_go("remote", "settings")
        self.answer = ()

    def _tell_version(self):
        """Only now that a window has been captured: a board that cannot do that has no working version."""
        said, model = self.manifest.said, self.policy.model
        described = "model %s" % model.id if model is not None else "no model"
        said["description"] = "%s, boot %08x" % (described, self.window.boot)
        self.uplink.say_version(said)
        print("version %s, %s" % (said["version"], said["description"]))
        self.version_told = True

    def _take_offer(self, about):
        from node import update

        self.offered = update.is_file(about)
        if not self.offered:
            self.outboard = True
        elif not len(self.ring) and not self.restart_due:
            known = update.is_known(self.uplink, about)
            self.restart_due = known == update.RETRY
            if not known:
                self._hold(TRIED_S)
                self.update = update.Update(self.uplink, about)
        if self.update is None:
            let_go("update")

    def _fetch_update(self):
        """One piece. A file that is whole is tried at the next start, once nothing waits here."""
        whole = self.update.step() if self.update is not None else False
        if whole is not None:
            self.update = None
            self.restart_due = whole

    def _settle(self):
        """What was on trial has proved itself."""
        if "slots" in sys.modules:
            from node import update

            update.settle(self.policy.model)
            let_go("update")
            self.next_listen_us = clock.now_us()
        self.settled = True

    def _restart(self):
        import slots

        self._keep_boot_note(self.window.sequence)
        print("starting anew, with what has been fetched")
        slots.restart()

    def _end_trial(self):
        """Code of an update has not brought a frame to the server for so long: its start counts as a failed one.

        What waits is in flash before the next start, unless there is no room: then no more is captured here anyway.
        """
        self.trial_until_us = clock.now_us() + TRIAL_S * 1000000
        if "slots" not in sys.modules or self.settled:
            return
        self.ring.spill()
        if not self.ring.in_ram() or not self.ring.has_room(len(self.frame)):
            if self.ring.in_ram() and self.identity is not None:
                self._keep_boot_note(self.window.sequence)
            sys.modules["slots"].end_try()

    def _spill(self):
        """The link is down, for who knows how long: what waits in RAM is to outlive a power cut."""
        self.spill_due = False
        moved = self.ring.spill()
        if moved:
            print("%d frames moved to %s, %d in RAM" % (moved, RING_FILE, self.ring.in_ram()))
            self.fit_ring()

    def _refused(self, key, reason):
        """Offer a refused frame a few times more, behind the others; then give it up. False if it is none of ours."""
        refusals = self.ring.refuse(key)
        if not refusals:
            return False
        print("%s refused by the server: %s" % (named(key), reason))
        if refusals >= REFUSALS:
            self.ring.release(key)
            self.reports.lose(key, "refused")
        return True


def forget_recoveries():
    """A window has arrived: safemode.py may get the board up again as often as at first."""
    try:
        os.remove(RECOVERIES_FILE)
    except OSError:  # there was none
        pass


def named(key):
    boot, sequence = key
    if sequence >= FIRST_REPORT:
        return "report %08x:%d" % (boot, sequence - FIRST_REPORT)
    return "window %08x:%d" % key


def say_captured(what, filled, tries, length):
    rate = "unknown rate"
    if filled.interval_ns:
        centihertz = 100000000000 // filled.interval_ns
        rate = "%d.%02d Hz" % (centihertz // 100, centihertz % 100)
    print(
        "%s: %d samples at %s, %d lost, %d tries, %d bytes%s"
        % (what, filled.samples, rate, filled.samples_lost, tries, length, said_scores(filled))
    )


def said_scores(filled):
    said = ""
    if filled.scores is not None:
        if filled.scores.anomaly is not None:
            said += ", anomaly %.2f" % filled.scores.anomaly
        if filled.scores.probability is not None:
            said += ", %s %d %%" % (filled.scores.class_name, filled.scores.probability * 100 + 0.5)
    return said + (", an event" if filled.trigger not in (SCHEDULE, BEFORE_EVENT) else "")


def describe(error):
    """One line on what is wrong and what to do."""
    if isinstance(error, (LinkError, NoRoomError, PartError)):
        return str(error)
    if isinstance(error, OSError):
        return "I2C or sensor: %s: check Qwiic cable and address" % (error.args[-1] if error.args else error)
    return "%s: %s" % (type(error).__name__, error)
