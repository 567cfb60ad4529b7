"""Frames that the server has not acknowledged yet, oldest first.

They wait in RAM. `spill` moves them to a file, where they outlive a power cut; `recover` finds them there at boot. They
are written one behind the other round the file, which spreads the wear, and what one `spill` writes keeps the guard
(node/records.py) from all that was confirmed before. A frame that is no longer needed is marked as released as soon as
no frame that is needed lies within the guard of the mark; until then a power cut brings it back, and the server
ignores what it knows.

A frame in the ring was promised to arrive. When there is no room, `has_room` says so and no window is captured; a ring
that `drops_oldest` makes room instead, and counts in `dropped`.
"""

from node.records import GUARD_BYTES, SECTOR_BYTES, NoFile, Records, record_bytes


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
    """

    def __init__(self, capacity_bytes, file=None, sync=None, drops_oldest=False):
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0  # of RAM
        self.dropped = 0  # to make room
        self.damaged = 0  # found spoilt when they were to be sent
        self._drops_oldest = drops_oldest
        self._waiting = []
        self._records = Records(file or NoFile())
        self._sync = sync or (lambda: None)
        self._cursor = 0  # end of the last record
        self._released = []  # offsets of records that are still to be marked

    def __len__(self):
        return len(self._waiting)

    def in_ram(self):
        """How many a power cut would take."""
        return len(self._held_in_ram())

    def has_room(self, length):
        return length + (0 if self._drops_oldest else self.used_bytes) <= self.capacity_bytes

    def put(self, key, frame):
        while self._drops_oldest and self.used_bytes and self.used_bytes + len(frame) > self.capacity_bytes:
            self._drop(self._held_in_ram()[0])
        self._waiting.append(Waiting(key, len(frame), frame, None))
        self.used_bytes += len(frame)

    def oldest(self, limit_bytes):
        """Keys and frames to send together: as many of the oldest as fit `limit_bytes`, one at least."""
        batch = []
        total = 0
        for one in list(self._waiting):
            if batch and total + one.length > limit_bytes:
                break
            frame = self._records.read(one.offset, one.length) if one.data is None else one.data
            if frame is None:
                self.damaged += 1
                self._remove(one)
                continue
            batch.append((one.key, frame))
            total += one.length
        return batch

    def release(self, key):
        """Forget the frame of `key`; False when there is none."""
        for one in self._waiting:
            if one.key == key:
                self._remove(one)
                self._mark_released()
                return True
        return False

    def refuse(self, key):
        """The server refused the frame: move it behind the others; returns how often that has happened."""
        for i, one in enumerate(self._waiting):
            if one.key == key:
                del self._waiting[i]
                self._waiting.append(one)
                one.refusals += 1
                return one.refusals
        return 0

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

    def _held_in_ram(self):
        return [one for one in self._waiting if one.data is not None]

    def _confirm(self, written):
        if written:
            self._sync()
        for one, offset in written:
            self.used_bytes -= one.length
            one.data = None
            one.offset = offset
            self._cursor = one.end()
        return len(written)

    def _make_room(self, start, end):
        one = self._near(start, end)
        while one is not None and self._drops_oldest:
            self._drop(one)
            one = self._near(start, end)
        return one is None

    def _near(self, start, end):
        """The first frame in the file that could share a page with what lies from start to end."""
        for one in self._waiting:
            if one.data is None and one.offset < end + GUARD_BYTES and one.end() > start - GUARD_BYTES:
                return one
        return None

    def _drop(self, one):
        self.dropped += 1
        self._remove(one)

    def _remove(self, one):
        self._waiting.remove(one)
        if one.data is None:
            self._released.append(one.offset)
        else:
            self.used_bytes -= one.length

    def _mark_released(self):
        kept = [offset for offset in self._released if self._near(offset, offset + SECTOR_BYTES)]
        if len(kept) < len(self._released):
            for offset in self._released:
                if offset not in kept:
                    self._records.mark_released(offset)
            self._sync()
            self._released = kept
