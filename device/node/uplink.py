"""The way to the server: Notecard set-up, binary store, web.post, and what the answer releases.

Requests: Notecard API (dev.blues.io/api-reference). Built on note-python's public calls only.

note-python reports every trouble as a bare Exception, gives up a transfer at the first `{bad-bin}` and does not wrap
its sequence number at 16 bits. So each attempt here starts from an empty binary store, one length check settles
whether it holds what was sent, and the Notecard object is renewed in good time and after every failure. A window may
thus be posted twice; its key (device, boot, sequence) makes that harmless.

Its CRC-32 in plain Python costs 15 to 30 ms of a Cortex-M4 and 50 KB of garbage a transaction; the runtime's own takes
its place, once it has shown that it computes the same.
"""

from binascii import crc32

import notecard
from notecard import notecard as note_python

from node import cobs
from node.bus import NOTECARD_ADDRESS

CARD_BINARY_SINCE = (5, 3, 1)
CHUNK_BYTES = 4096  # of the binary store's content in one card.binary.put
ATTEMPTS = 3
UNCONNECTED = "not connected to Notehub; if it stays so, check antenna, coverage and SIM"
DOUBT_EVERY = 8
HELD_S = 604800  # for how long outboard updates are held back while windows wait
PAUSED_S = 3600  # while none do, but nobody has looked at what would be flashed
TRIED_S = 43200  # while a file for us is fetched and on trial
ORDERS = "capture.qi"
NOTES = "judder.dbx"  # a database that never leaves the Notecard (note.add); no update of the board wipes it
POST_OVERHEAD_BYTES = 1024  # of a web.post, besides its body
RENEW_AFTER = 60000  # transactions; note-python's sequence number outgrows the card's 16 bits at 65536

if note_python.crc32(b"123456789") == crc32(b"123456789"):
    note_python.crc32 = crc32

_HINTS = {
    401: "the token of the Notehub route is not the server's: make them the same",
    403: "the server does not believe the signatures: FRAME_KEY has to be what `judder key DEVICE` prints there; if it "
    "asks for none, check the route's URL and headers",
    404: "Notehub has no proxy route with this alias, or the server no such path: check ROUTE and the route's URL",
    413: "the server takes only smaller bodies: lower POST_BYTES",
    507: "the server's disk is full: make room there, windows wait here",
}


class LinkError(Exception):
    """Something between here and the server failed; the message says what, where and what to do."""


class DeniedError(LinkError):
    """The server takes none of these frames, for who sends them."""


class RefusedError(LinkError):
    """The Notecard answered that it will not."""


class Uplink:
    """One Notecard on `bus`. `settings` as in node.settings.

    After `connect`: `device` is the DeviceUID, `card_version` the Notecard's firmware, and `complaints` are lines
    about what will keep windows from arriving.
    """

    def __init__(self, bus, settings):
        self.complaints = []
        self.device = ""
        self.card_version = ""
        self.transactions = 0
        self.attempts_failed = 0
        self.posted_bytes = 0  # what the network was asked to carry, connections included
        self._signer = None
        self._bus = bus
        self._settings = settings
        self._stock = settings.transfer == "stock"
        self._unconnected = 0
        self._notes_refused = 0
        self._card = None
        self._renew_at = 0
        self._chunk = bytearray(CHUNK_BYTES)  # joined here: no heap of a small board has one piece for several windows
        self._packet = bytearray(cobs.max_length(CHUNK_BYTES))

    def connect(self):
        """Set the Notecard up and learn who we are. Raises LinkError."""
        version = self.request({"req": "card.version"})["version"]
        self.card_version = version
        if _numbers(version) < CARD_BINARY_SINCE:
            raise LinkError(
                "Notecard firmware %s lacks card.binary, needs 5.3.1 or later: `firmware install latest` in the Blues "
                "terminal" % version
            )
        hub_set = {"req": "hub.set", "mode": "continuous", "sync": True}
        if self._settings.product_uid:
            hub_set["product"] = self._settings.product_uid
        if self._settings.device_sn:
            hub_set["sn"] = self._settings.device_sn
        self.request(hub_set)
        self.hold_updates(HELD_S)
        hub = self.request({"req": "hub.get"})
        self.device = hub["device"]
        self.complaints = []
        if not hub.get("product"):
            self.complaints.append(
                "the Notecard has no product and cannot reach Notehub: set PRODUCT_UID in settings.toml"
            )

    def sign_with(self, signer):
        """Have a Signer of node.signature sign what is posted; None: frames go as they are."""
        self._signer = signer

    def hold_updates(self, seconds):
        """Keep outboard updates away for so long, as they reset the board and wipe its drive; 0: allow them.

        Never for good: a board that has died has to be reached by one.
        """
        request = {"req": "card.dfu", "name": "stm32", "off" if seconds else "on": True}
        if seconds:
            request["seconds"] = seconds
        self.request(request)

    def watch(self, seconds):
        """Have the Notecard pulse ATTN when it hears nothing from us for so long, counted anew from now; 0: never."""
        if seconds:
            self.request({"req": "card.attn", "mode": "watchdog", "seconds": seconds})
        else:
            self.request({"req": "card.attn", "mode": "disarm,-all"})

    def leave(self):
        """Call the watchdog off, in a conversation of its own: the last one may have broken off anywhere."""
        self._card = None
        self.watch(0)

    def adopt(self, settings):
        """Use other settings from now on."""
        self._settings = settings
        self._stock = settings.transfer == "stock"

    def asked(self):
        """What Notehub wants of us now: the body of a signal or of the oldest note in ORDERS, and whether it is one."""
        signal = self.optional({"req": "hub.signal"}).get("body")
        if signal:
            return signal, False
        note = self.optional({"req": "note.get", "file": ORDERS})
        return (note.get("body") or {}, True) if note else (None, False)

    def optional(self, request):
        """The reply; {} when the Notecard has nothing, or will not."""
        try:
            return self.request(request)
        except RefusedError:
            return {}

    def say_version(self, said):
        """Tell Notehub what runs here."""
        try:
            self.request({"req": "dfu.status", "on": True, "version": said})
        except RefusedError as error:
            print("%s: Notehub is told no version" % error)

    def note(self, name):
        """What `keep_note` has kept under this name, a dict; None when there is nothing."""
        try:
            return self.request({"req": "note.get", "file": NOTES, "note": name}).get("body")
        except RefusedError as error:
            if "noexist}" in str(error) or "{not-supported}" in str(error):
                return None
            self._notes_refused += 1
            if self._notes_refused <= ATTEMPTS:
                raise  # busy, say: what is there must not be taken for nothing
            self.complaints.append("%s: going on without what it keeps of earlier starts" % error)
            return None

    def keep_note(self, name, body):
        """Keep a dict on the Notecard, where resets and updates of the board leave it alone. Raises LinkError."""
        note = {"req": "note.update", "file": NOTES, "note": name, "body": body}
        try:
            self.request(note)
        except RefusedError:  # there is none yet
            note["req"] = "note.add"
            self.request(note)

    def health(self):
        """What the Notecard says of supply, temperature and network; as much of it as it says."""
        found = {"card": self.card_version}
        try:
            found["voltage_v"] = self.request({"req": "card.voltage"}).get("value")
            found["temperature_degc"] = self.request({"req": "card.temp"}).get("value")
            net = self.request({"req": "card.wireless"}).get("net", {})
            found["bars"], found["rssi_dbm"] = net.get("bars"), net.get("rssi")
        except LinkError:
            pass
        return found

    def utc_s(self):
        """The Notecard's time in whole seconds since 1970, or None before it has met the network."""
        try:
            return self.request({"req": "card.time"}).get("time")
        except LinkError:
            return None

    def post(self, frames):
        """Send frames in one web.post (see `stage`).

        Returns the keys stored, (boot, sequence, reason) of those refused, (boot, first, last) of those missed there.
        Raises LinkError when there is no proper acknowledgement; every frame then still has to be kept.
        """
        self._check_connection()
        bytes_before = self.posted_bytes
        self.posted_bytes += POST_OVERHEAD_BYTES + self.stage(frames)
        try:
            answer = self.request(
                {
                    "req": "web.post",
                    "route": self._settings.route,
                    "name": "/ingest?d=%s" % self.device.replace(":", "%3A"),
                    "binary": True,
                    "content": "application/octet-stream",
                    "seconds": self._settings.post_timeout_s,
                }
            )
        except RefusedError as error:
            if UNCONNECTED in str(error):  # before anything went out
                self.posted_bytes = bytes_before
            raise
        result = answer.get("result", 0)
        if not 200 <= result < 300:
            kind = DeniedError if result == 403 else LinkError
            raise kind("server answered %d: %s" % (result, _HINTS.get(result, "kept, will be sent again")))
        return _acknowledged(answer.get("body"))

    def _check_connection(self):
        """Ask before some seconds of bus are spent for nothing; now and then do not believe the answer."""
        if self.request({"req": "hub.status"}).get("connected"):
            self._unconnected = 0
            return
        self._unconnected += 1
        if self._unconnected % DOUBT_EVERY:
            raise RefusedError("Notecard: hub.status: %s" % UNCONNECTED)

    def stage(self, frames):
        """Fill the Notecard's binary store and return how many bytes it holds; LinkError when it will not hold them.

        `frames()` gives the frames, anew at each attempt; each need only last until the next is asked for.
        """
        attempt = 1
        while True:
            pieces = self._signer.pieces(frames()) if self._signer else frames()
            try:
                if self._stock:
                    return self._fill_store_stock(b"".join([bytes(piece) for piece in pieces]))
                return self._fill_store(pieces)
            except LinkError:
                self.attempts_failed += 1
                if attempt >= ATTEMPTS:
                    raise
            except MemoryError:  # it would be the same at the next try, and nothing would ever be sent
                if not self._stock:
                    raise
                self._stock = False
                self._card = None
                print("memory has no room for TRANSFER = stock; using chunks")
            attempt += 1

    def _fill_store(self, pieces):
        self.request({"req": "card.binary", "delete": True})
        sent = held = 0
        for piece in pieces:
            start = 0
            while start < len(piece):
                part = memoryview(piece)[start : start + CHUNK_BYTES - held]
                self._chunk[held : held + len(part)] = part
                start += len(part)
                held += len(part)
                if held == CHUNK_BYTES:
                    self.put_chunk(memoryview(self._chunk)[:held], sent)
                    sent += held
                    held = 0
        if held:
            self.put_chunk(memoryview(self._chunk)[:held], sent)
        return self._check_store(sent + held)

    def put_chunk(self, data, offset):
        """Append at most CHUNK_BYTES to the binary store, which has to end at `offset`. Raises LinkError."""
        length = cobs.encode(data, self._packet)
        put = {"req": "card.binary.put", "cobs": length - 1}
        if offset:
            put["offset"] = offset
        self.request(put)
        self._transmit(memoryview(self._packet)[:length])

    def _fill_store_stock(self, body):
        """note-python's own way (its notecard/binary_helpers.py): one packet, MD5 in pure Python, five copies."""
        from notecard import binary_helpers  # only here: a small heap has better use for its room

        self.request({"req": "card.binary", "delete": True})
        try:
            self.transactions += 3
            binary_helpers.binary_store_transmit(self._open(), body, 0)
        except (LinkError, MemoryError):
            raise
        except Exception as error:
            self._fail("binary transfer", error)
        return self._check_store(len(body))

    def receive(self, length):
        """So many bytes from the beginning of the binary store; note-python checks their MD5. Raises LinkError."""
        from notecard import binary_helpers  # only here: a small heap has better use for its room

        self.transactions += 1
        try:
            return binary_helpers.binary_store_receive(self._open(), 0, length)
        except LinkError:
            raise
        except Exception as error:
            self._fail("binary transfer", error)

    def _check_store(self, length):
        held = self.request({"req": "card.binary"}).get("length", 0)
        if held != length:
            raise LinkError("Notecard holds %d bytes of %d sent" % (held, length))
        return held

    def _transmit(self, packet):
        card = self._open()
        card.lock()
        try:
            card.transmit(packet, delay=False)
        except Exception as error:
            self._fail("binary transfer", error)
        finally:
            card.unlock()

    def request(self, request):
        """One transaction; an `err` in the reply is a RefusedError with the Notecard's own words."""
        try:
            self.transactions += 1
            reply = self._open().Transaction(request) or {}
        except LinkError:
            raise
        except Exception as error:  # note-python raises nothing more specific
            self._fail(request["req"], error)
        if "err" in reply:
            text = reply["err"]
            if "-connected}" in text:  # notecard-schema's {hub-not-connected} and {not-connected}
                text = UNCONNECTED
            raise RefusedError("Notecard: %s: %s" % (request["req"], text))
        return reply

    def _open(self):
        if self._card is None or self.transactions >= self._renew_at:
            self._card = notecard.OpenI2C(self._bus, NOTECARD_ADDRESS, 0)
            self._renew_at = self.transactions + RENEW_AFTER
        return self._card

    def _fail(self, doing, error):
        self._card = None
        try:
            answers = self._bus.answers(NOTECARD_ADDRESS)
        except OSError as trouble:
            raise LinkError(str(trouble))
        if not answers:
            raise LinkError("no Notecard at 0x17: FEATHER power switch on? Qwiic cable? a supply that gives 2 A?")
        raise LinkError(
            "no good answer from the Notecard to %s (%s); if it stays so, check FEATHER power switch, Qwiic cable, "
            "supply" % (doing, error)
        )


def _acknowledged(body):
    """What the server's answer names; anything on the way may have replaced it."""
    try:
        stored = [(int(boot), int(sequence)) for boot, sequence in body["stored"]]
        refused = [(int(boot), int(sequence), reason) for boot, sequence, reason in body["rejected"]]
        missed = [(int(boot), int(first), int(last)) for boot, first, last in body.get("resend", ())]
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
        raise LinkError("the answer is no acknowledgement of ours: does the route's URL lead to judder serve?")
    return stored, refused, missed


def _numbers(version):
    """(5, 3, 1) from notecard-5.3.1.12345."""
    numbers = []
    for part in version.replace("-", ".").split("."):
        if part.isdigit():
            numbers.append(int(part))
    return tuple(numbers[:3])
