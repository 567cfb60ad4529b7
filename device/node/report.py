"""A report: what the board says about itself, and which windows will never arrive (docs/wire-format.md, Report)."""

import json
import struct
from binascii import crc32

from node import clock

MAGIC = b"VR\xc1\x7f"
VERSION = 1
HEADER = "<4sBBHIIIQH"
HEADER_LENGTH = 30
FIRST_REPORT = 0x80000000  # reports count from here, so that windows have sequences without holes
LISTED = 24
SOON_US = 600000000  # between reports while there are losses to tell


class Reports:
    """This boot's: what they are made of, and when the next one is due.

    `counts` since the boot and `previous`, what is known of the boot before, become members as they are. Windows given
    up are listed as [boot, first, last, reason] until a report has taken them along; if that is given up, the next one
    takes them.
    """

    def __init__(self, boot, every_s):
        self.counts = {"skipped": 0, "retries": 0, "overruns": 0, "samples_lost": 0, "link_failures": 0}
        self.previous = {}
        self._boot = boot
        self.every_us = every_s * 1000000
        self._number = 0
        self._lost = []
        self._lost_more = 0  # that the list had no room for
        self._told = [], 0  # both, as the newest report tells them
        self._started_us = self._next_us = self._soon_us = clock.now_us()

    def due_us(self):
        return min(self._next_us, self._soon_us) if self._lost else self._next_us

    def lose(self, key, reason):
        """Note that the window of this key will never arrive, and say so on the console."""
        boot, sequence = key
        if sequence >= FIRST_REPORT:
            if boot == self._boot and sequence == FIRST_REPORT + self._number - 1:
                self._take_back()
            return
        print("window %08x:%d lost: %s" % (boot, sequence, reason))
        for one in self._lost:
            if one[0] == boot and one[3] == reason and one[1] - 1 <= sequence <= one[2] + 1:
                one[1] = min(one[1], sequence)
                one[2] = max(one[2], sequence)
                return
        if len(self._lost) < LISTED:
            self._lost.append([boot, sequence, sequence, reason])
        else:
            self._lost_more += 1

    def _take_back(self):
        told, more = self._told
        self._told = [], 0
        self._lost_more += more
        for one in told:
            if len(self._lost) < LISTED:
                self._lost.append(one)
            else:
                self._lost_more += one[2] - one[1] + 1

    def write(self, identity, written_at_us, members):
        """Key and frame of the next one. It is written again later, with another key, unless `written` is called."""
        self._soon_us = clock.now_us() + SOON_US
        self._next_us = max(self._next_us, self._soon_us)
        members["uptime_s"] = (clock.now_us() - self._started_us) // 1000000
        for known in (self.counts, self.previous):
            members.update(known)
        if self._lost:
            members["lost"] = self._lost
        if self._lost_more:
            members["lost_more"] = self._lost_more
        key = (self._boot, FIRST_REPORT + self._number)
        return key, encode(key, identity, written_at_us, members)

    def written(self):
        """The ring has it: now it will arrive."""
        self._number += 1
        self._told = self._lost, self._lost_more
        self._lost = []
        self._lost_more = 0
        self._next_us = clock.now_us() + self.every_us


def encode(key, identity, written_at_us, members):
    """The frame of a report. `identity` is node.frame.text_block, `members` become its JSON object; None: left out."""
    known = {}
    for name in members:
        if members[name] is not None:
            known[name] = members[name]
    data = json.dumps(known).encode()
    length = HEADER_LENGTH + len(identity) + len(data) + 4
    header = struct.pack(HEADER, MAGIC, VERSION, HEADER_LENGTH, 0, length, key[0], key[1], written_at_us, len(identity))
    out = header + identity + data
    return out + struct.pack("<I", crc32(out) & 0xFFFFFFFF)
