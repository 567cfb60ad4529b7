"""A file from Notehub: from the Notecard into the spare slot, piece by piece, to be tried at the next start.

Format of the file: docs/updates.md. Requests: dfu.status, dfu.get, hub.set mode dfu (dev.blues.io; note-samples:
python-dfu). The Notecard is off the network meanwhile, and the board goes on measuring. A power cut costs the piece at
hand: the slot's header says how far it has come.
"""

import struct
from binascii import a2b_base64, crc32

from notecard import md5

import slots
from node.uplink import LinkError, RefusedError

ENDING = ".judder"  # any other file is for an outboard update
LEAD = b"/// BINPACK ///\nHOST: judder\n/// BINPACK ///\n\0"  # a Notecard that would flash it finds no host of its own
MAGIC = b"VU\xc1\x7f"
VERSION = 1
HEADER = "<4sBBHII44sI"  # magic, version, kind, header length, content: length and CRC-32; version; CRC-32 of all this
HEADER_LENGTH = 64
CHUNK_BYTES = 4096
PAYLOAD_BYTES = 1024  # of a chunk as base64
MD5_TRIES = 5
RETRY = 2
FAILURES = 10  # that a file may cost: the board is off the network meanwhile


class UpdateError(Exception):
    """A file that will not do, and why."""


def is_file(about):
    """Whether what the Notecard has is for us, and not for an outboard update; `about`: the body of dfu.status."""
    return (about.get("source") or about.get("name") or "").endswith(ENDING)


class Update:
    """`step` until it returns whether it is there now. Whatever it raises, it can go on then, or has given up."""

    def __init__(self, uplink, about):
        self._uplink = uplink
        self._length = about["length"] - len(LEAD) - HEADER_LENGTH
        self._offer = offer_of(about)
        self._slot = None
        self._failures = 0
        self._binary = True
        self._over = None  # whether it is whole, once the Notecard has no more to do with it
        self._refusal = None

    def step(self):
        """Fetch one piece. None while there are more, True when it is whole, False when it will not do."""
        if self._over is None:
            try:
                self._fetch()
            except UpdateError as error:
                self._give_up(str(error))
            except Exception as error:
                self._slot = None  # to be entered anew: the Notecard may have forgotten what it was at
                self._failures += 1
                if self._failures < FAILURES:
                    raise
                self._give_up("%d failures, the last one: %s" % (FAILURES, error))
        return None if self._over is None else self._leave()

    def _give_up(self, reason):
        self._over, self._refusal = False, reason

    def _leave(self):
        if self._refusal:
            _tell(self._uplink, "err", self._refusal)
            self._refusal = None
        # what the Notecard refuses of this keeps the board from nothing
        self._uplink.optional({"req": "hub.set", "mode": "dfu-completed"})
        self._uplink.optional({"req": "hub.set", "mode": "continuous"})
        return self._over

    def _fetch(self):
        slot = self._slot
        if slot is None:
            self._slot = self._enter()
        elif slot.done < slot.length:
            at = len(LEAD) + HEADER_LENGTH + slot.done
            slot.put(self._get(at, min(CHUNK_BYTES, slot.length - slot.done)))
            slot.keep()
        else:
            _finish(slot)
            self._over = True

    def _enter(self):
        """Have the Notecard give the file out, and find the slot for it."""
        self._uplink.request({"req": "hub.set", "mode": "dfu"})
        self._uplink.request({"req": "dfu.get", "length": 0})
        kind, length, checksum, version = self._header()
        slot = slots.spare(kind)
        if slot is None:
            raise UpdateError("no slot can be written: judder deploy makes them, and in service mode they are the PC's")
        if length > slot.capacity:
            raise UpdateError("it has %d bytes, and the board's slots have %d" % (length, slot.capacity))
        if not (slot.state == slots.LOADING and slot.offer == self._offer and slot.checksum == checksum):
            slot.kind, slot.state, slot.tries, slot.done = kind, slots.LOADING, 0, 0
            slot.length, slot.checksum, slot.offer, slot.version = length, checksum, self._offer, version
            slot.generation = max([one.generation for one in slots.slots(kind)]) + 1
            slot.base = slots.base(kind)
            slot.keep()
        print("fetching %s, %d of %d bytes are there" % (slot.version, slot.done, length))
        return slot

    def _header(self):
        """Kind, length and CRC-32 of the content, version."""
        head = self._get(0, len(LEAD) + HEADER_LENGTH) if self._length > 0 else b""
        if not head.startswith(LEAD + MAGIC):
            raise UpdateError("it is no update file")
        header = head[len(LEAD) :]
        _, version, kind, header_length, length, checksum, name, check = struct.unpack(HEADER, header)
        if check != crc32(header[:-4]) & 0xFFFFFFFF:
            raise UpdateError("it is no update file")
        if version != VERSION or kind not in slots.NAMES or header_length != HEADER_LENGTH:
            raise UpdateError("this firmware takes no updates of version %d, kind %d" % (version, kind))
        if self._length != length:
            raise UpdateError("%d of its %d bytes are there" % (self._length, length))
        try:
            return kind, length, checksum, name.rstrip(b"\0").decode()
        except ValueError:
            raise UpdateError("its version is no text")

    def _get(self, offset, length):
        """These bytes of the file, checked by their MD5."""
        for _ in range(MD5_TRIES):
            data = self._get_binary(offset, length) if self._binary else self._get_payload(offset, length)
            if data is not None:
                return data
        raise LinkError("the Notecard's pieces of an update are damaged: check Qwiic cable and supply")

    def _get_binary(self, offset, length):
        try:
            self._uplink.request({"req": "dfu.get", "offset": offset, "length": length, "binary": True})
        except RefusedError:  # an older one
            self._binary = False
            return None
        return self._uplink.receive(length)

    def _get_payload(self, offset, length):
        found = b""
        while len(found) < length:
            size = min(PAYLOAD_BYTES, length - len(found))
            reply = self._uplink.request({"req": "dfu.get", "offset": offset + len(found), "length": size})
            data = a2b_base64(reply.get("payload", ""))
            if len(data) != size or md5.digest(data) != reply.get("status"):
                return None
            found += data
        return found


def _finish(slot):
    """All of it is there."""
    if not slot.is_whole():
        slot.done, slot.state = 0, slots.EMPTY
        slot.keep()
        raise UpdateError("its content does not match its checksum")
    slot.state = slots.TRIAL
    slot.keep()
    print("%s is there and will be tried" % slot.version)


def offer_of(about):
    """What tells one upload from another: of the same file, too, as Notehub gives each a name of its own."""
    said = "%s %s %d" % (about.get("source"), about.get("md5") or about.get("crc32"), about["length"])
    return crc32(said.encode()) & 0xFFFFFFFF


def is_known(uplink, about):
    """Whether what the Notecard has is here already: True, or RETRY if the next start is to try it once more.

    What became of it is told, if that is known yet. What has failed is then forgotten: Notehub may start it again.
    """
    for kind in slots.NAMES:
        for slot in slots.slots(kind):
            if slot.offer == offer_of(about) and slot.state > slots.LOADING and slot.base == slots.base(kind):
                if slot.state == slots.FAILED:
                    _tell(uplink, "err", "%s did not prove itself, and is not used" % slot.version)
                    slot.end(slots.EMPTY)
                elif slot.state == slots.PROVEN:
                    used = slots.running[kind]
                    if used is None or used.name != slot.name:
                        return _retry(slot)
                    _tell(uplink, "status", "%s is in use" % slot.version)
                return True
    return False


def _retry(slot):
    """It has been in use before, and is wanted again: it is newer than what is in use now."""
    slot.generation = max([one.generation for one in slots.slots(slot.kind)]) + 1
    slot.state, slot.tries = slots.TRIAL, 0
    slot.keep()
    print("%s is here and will be tried again" % slot.version)
    return RETRY


def settle(model):
    """A window was captured, and a frame of this start has arrived: what was on trial has proved itself."""
    for slot in slots.running.values():
        if slot is not None and slot.state == slots.TRIAL and (slot.kind == slots.CODE or model is not None):
            slot.end(slots.PROVEN)


def _tell(uplink, member, outcome):
    uplink.optional({"req": "dfu.status", "stop": True, member: outcome})
    print("update: %s" % outcome)
