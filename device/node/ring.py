"""Frames that the server has not acknowledged yet, oldest first.

They wait in RAM. `spill` moves them to a file, where they outlive a power cut; `recover` finds them there at boot. They
are written one behind the other round the file, which spreads the wear, and what one `spill` writes keeps the guard
(node/records.py) from all that was confirmed before. A frame that is no longer needed is marked as released as soon as
no frame that is needed lies within the guard of the mark; until then a power cut brings it back, and the server
ignores what it knows.

A frame in the ring was promised to arrive. When there is no room, `has_room` says so and no window is captured; a ring
that `drops_oldest` makes room instead, at the cost of windows and not of reports. What it gives up is told to `lost`.

The server may have lost what it has acknowledged: it went back to a backup, say. What was released is therefore kept
while nobody needs its room, and `recall` has it wait again.
"""

from node.records import GUARD_BYTES, SECTOR_BYTES, NoFile, Records, record_bytes
from node.report import FIRST_REPORT

SENT_SHARE = 4  # what was released fills at most every fourth part of the RAM
CROWDED_SHARE = 3  # with a third of the file in use, frames share a guard from then on
GROUP = 8


class Waiting:
    """A frame of `length` bytes: `data` while it is in RAM, then at `offset` in the file."""

    def __init__(self, key, length, data, offset):
        self.key = key
        self.length = length
        self.data = data
        self.offset = offset
        self.refusals = 0

    def end(self):
        return self.offset + record_bytes(self.length)


class Ring:
    """At most `capacity_bytes` of frames in RAM, each under its (boot, sequence), and what `file` holds.

    `file` is open for reading and writing in binary; `sync` is os.sync, after which the flash holds what was written.
    `lost(key, reason)` is called for each frame that is given up. `buffer` is where a frame of the file is read into.
    """

    def __init__(
        self, capacity_bytes, file=None, sync=None, drops_oldest=False, lost=lambda key, reason: None, buffer=None
    ):
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0  # of RAM
        self.found = {}  # by boot: the highest sequence of a window that `recover` found
        self._buffer = buffer or bytearray(0)
        self.drops_oldest = drops_oldest
        self._lost = lost
        self._waiting = []
        self._sent = []  # (key, frame) released from RAM
        self._sent_bytes = 0
        self._records = Records(file or NoFile())
        self._sync = sync or (lambda: None)
        self._cursor = 0  # end of the last record
        self._released = []  # offsets of records that are still to be marked

    def __len__(self):
        return len(self._waiting)

    def in_ram(self):
        """How many a power cut would take."""
        return len(self._held_in_ram())

    def windows_in_ram(self):
        return len([one for one in self._held_in_ram() if one.key[1] < FIRST_REPORT])

    def has_room(self, length):
        return length + (0 if self.drops_oldest else self.used_bytes) <= self.capacity_bytes

    def put(self, key, frame):
        while self.drops_oldest and self.used_bytes and self.used_bytes + len(frame) > self.capacity_bytes:
            self._drop_in_ram()
        self._waiting.append(Waiting(key, len(frame), frame, None))
        self.used_bytes += len(frame)
        self._forget_sent()

    def make_do(self):
        """The heap has less room than was thought: give up something in RAM; False when nothing may be given up."""
        if self._sent:
            self._sent, self._sent_bytes = [], 0
            return True
        if self.drops_oldest and self.in_ram():
            self._drop_in_ram()
            return True
        return False

    def oldest(self, limit_bytes):
        """Gives (key, frame) of what to send together: as many of the oldest as fit `limit_bytes`, one at least.

        A frame lasts until the next is asked for; the ring must not change meanwhile.
        """
        total = 0
        for one in list(self._waiting):
            if total and total + one.length > limit_bytes:
                return
            frame = self._read(one)
            if frame is not None:
                total += one.length
                yield one.key, frame

    def _read(self, one):
        """The frame; None, and it is given up, when it is found spoilt."""
        if one.data is not None:
            return one.data
        if len(self._buffer) < one.length:
            self._buffer = bytearray(one.length)
        frame = memoryview(self._buffer)[: one.length]
        if self._records.read(one.offset, frame):
            return frame
        self._remove(one)
        self._lost(one.key, "damaged")
        return None

    def holds_report(self, boot):
        """Whether a report of this boot waits."""
        return any(one.key[0] == boot and one.key[1] >= FIRST_REPORT for one in self._waiting)

    def release(self, key):
        """Forget the frame of `key`; False when there is none."""
        for one in self._waiting:
            if one.key == key:
                self._remove(one)
                if one.data is not None:
                    self._sent.append((key, one.data))
                    self._sent_bytes += one.length
                    self._forget_sent()
                self._mark_released()
                return True
        return False

    def recall(self, keys):
        """The server misses these: those that can still be had wait again; returns the others."""
        waiting = [one.key for one in self._waiting]
        keys = [key for key in keys if key not in waiting]
        for key, frame in list(self._sent):
            if key in keys:
                keys.remove(key)
                self._sent.remove((key, frame))
                self._sent_bytes -= len(frame)
                self._waiting.append(Waiting(key, len(frame), frame, None))
                self.used_bytes += len(frame)
        for _, _, offset, key, length in self._records.scan() if keys else ():
            if key in keys:
                keys.remove(key)
                self._released = [one for one in self._released if one != offset]
                self._waiting.append(Waiting(key, length, None, offset))
        return keys

    def put_off(self, limit_bytes):
        """Move what `oldest` would give behind the others."""
        keys = [key for key, _ in self.oldest(limit_bytes)]
        off = [one for one in self._waiting if one.key in keys]
        self._waiting = [one for one in self._waiting if one.key not in keys] + off

    def refuse(self, key):
        """The server refused the frame: move it behind the others; returns how often that has happened."""
        for i, one in enumerate(self._waiting):
            if one.key == key:
                del self._waiting[i]
                self._waiting.append(one)
                one.refusals += 1
                return one.refusals
        return 0

    def worth_spilling(self):
        """Whether there is enough in RAM for its guard: in a crowded file a few frames share one."""
        in_ram = in_file = 0  # no lists: this is asked again and again, also when memory is short
        for one in self._waiting:
            if one.data is None:
                in_file += record_bytes(one.length) + GUARD_BYTES
            else:
                in_ram += 1
        crowded = in_file > self._records.end // CROWDED_SHARE
        return in_ram >= (GROUP if crowded else 1) or (in_ram > 0 and 2 * self.used_bytes > self.capacity_bytes)

    def spill(self):
        """Move the frames in RAM to the file, oldest first, as many as it has room for; returns how many those were.

        They are safe when this returns. It takes 64 ms a page, and the CPU stands still meanwhile.
        """
        spilled = 0
        written = []
        start = self._cursor + GUARD_BYTES
        for one in self._held_in_ram():
            size = record_bytes(one.length)
            if start + size > self._records.end:  # go round: what was just written is ahead from now on
                spilled += self._confirm(written)
                written = []
                start = self._records.start
            if start + size > self._records.end or not self._make_room(start, start + size):
                break
            self._released = [offset for offset in self._released if not start <= offset < start + size]
            self._records.write(start, one.key, one.data)
            written.append((one, start))
            start += size
        return spilled + self._confirm(written)

    def recover(self):
        """Take up all that earlier boots have left in the file, in the order in which it was written."""
        found = self._records.scan()
        self._waiting[:0] = [Waiting(key, length, None, offset) for _, kept, offset, key, length in found if kept]
        if found:
            self._cursor = found[-1][2] + record_bytes(found[-1][4])
        for _, _, _, key, _ in found:
            if key[1] < FIRST_REPORT:
                self.found[key[0]] = max(key[1], self.found.get(key[0], 0))

    def _held_in_ram(self):
        return [one for one in self._waiting if one.data is not None]

    def _confirm(self, written):
        if written:
            self._sync()
        for one, offset in written:
            self.used_bytes -= one.length
            one.offset = offset
            one.data = None
            self._cursor = one.end()
        return len(written)

    def _make_room(self, start, end):
        near = self._near(start, end)
        if not near or not self.drops_oldest:
            return not near
        for one in near:
            if one.key[1] < FIRST_REPORT:
                self._drop(one)
            else:
                self._take_back(one)
        return True

    def _take_back(self, one):
        """From the file into RAM: a report may tell of windows that were dropped before."""
        frame = self._read(one)
        if frame is not None:
            one.data, one.offset = bytes(frame), None
            self.used_bytes += one.length

    def _near(self, start, end):
        """The frames in the file that could share a page with what lies from start to end."""
        near = []
        for one in self._waiting:
            if one.data is None and one.offset < end + GUARD_BYTES and one.end() > start - GUARD_BYTES:
                near.append(one)
        return near

    def _drop_in_ram(self):
        in_ram = self._held_in_ram()
        windows = [one for one in in_ram if one.key[1] < FIRST_REPORT]
        self._drop((windows or in_ram)[0])

    def _drop(self, one):
        self._remove(one)
        self._lost(one.key, "dropped")

    def _remove(self, one):
        self._waiting.remove(one)
        if one.data is None:
            self._released.append(one.offset)
        else:
            self.used_bytes -= one.length

    def _forget_sent(self):
        room = min(self.capacity_bytes // SENT_SHARE, self.capacity_bytes - self.used_bytes)
        while self._sent and self._sent_bytes > room:
            self._sent_bytes -= len(self._sent.pop(0)[1])

    def _mark_released(self):
        kept = [offset for offset in self._released if self._near(offset, offset + SECTOR_BYTES)]
        if len(kept) < len(self._released):
            for offset in self._released:
                if offset not in kept:
                    self._records.mark_released(offset)
            self._sync()
            self._released = kept
