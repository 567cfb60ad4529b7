"""Settings: one table, read from settings.toml, each value checked.

The board's settings.toml is a few lines of NAME = value. It is read here rather than through os.getenv, which does
not exist on MicroPython and cannot say which line is wrong.
"""

from binascii import crc32

FILE = "settings.toml"

# name, default, allowed (first and last of a number, then others that mean something else; least and most bytes of a
# text; or all choices). What each means: node/meanings.py, which the firmware itself does not load
TABLE = (
    ("PRODUCT_UID", "", (0, 128)),
    ("DEVICE_SN", "", (0, 64)),
    ("ROUTE", "ingest", (0, 64)),
    ("LABEL", "", (0, 64)),
    ("SESSION", "", (0, 64)),
    ("FRAME_KEY", "", (0, 32)),
    ("ODR_HZ", 1344, (10, 25, 50, 100, 200, 400, 1344)),
    ("FULL_SCALE_G", 2, (2, 4, 8, 16)),
    ("SAMPLES", 1024, (64, 4096)),
    ("CAPTURE_EVERY_S", 900, (1, 86400)),
    ("UPLOAD", "all", ("all", "schedule", "score", "off")),
    ("UPLOAD_EVERY_S", 86400, (60, 604800, 0)),
    ("EVENT_ANOMALY", 0, (0, 100000)),
    ("EVENT_CLASS_PERCENT", 0, (0, 100)),
    ("EVENT_RMS_MG", 0, (0, 28000)),
    ("EVENT_KURTOSIS", 0, (0, 100000)),
    ("EVENT_EVERY_S", 3600, (0, 86400)),
    ("BEFORE_EVENT", 1, (0, 4)),
    ("RING_BYTES", 98304, (16384, 262144)),
    ("DROP", "newest", ("newest", "oldest")),
    ("DAILY_KB", 0, (16, 1000000, 0)),
    ("REPORT_EVERY_S", 21600, (600, 604800)),
    ("POST_BYTES", 16384, (4096, 98304)),
    ("POST_TIMEOUT_S", 60, (10, 300)),
    ("WATCHDOG_S", 7200, (1800, 86400, 0)),
    ("LISTEN_EVERY_S", 60, (10, 86400)),
    ("TRANSFER", "chunks", ("chunks", "stock")),
    ("SENSOR_ADDRESS", 24, (24, 25)),
)

_MOST_BYTES = 16384  # of the file; all settings with their comments take 3000
_MOST_COMPLAINTS = 12  # or a file of something else would fill the heap with them
_SHOWN = 64  # characters of what is wrong
_FRAME_OVERHEAD = 3072  # header, texts, gaps and CRC at their longest (node.frame.max_length)
KEY = "FRAME_KEY"  # never shown, and not in the hash: the same board has it here or in its Notecard
LOCAL = ("PRODUCT_UID", "DEVICE_SN", KEY)  # not to be set from afar
CHOICES = ("ODR_HZ", "FULL_SCALE_G", "UPLOAD", "DROP", "TRANSFER", "SENSOR_ADDRESS")


class Settings:
    """The effective value of each setting as an attribute in lower case; without methods, so that this module can go.

    `complaints`: what was wrong; `hash`: CRC-32 of all; `changed`: NAME: value of those that are no defaults;
    `least_ring_bytes`: what one window may take. Of what came from Notehub: `in_force`, NAME: text, and `refused`,
    NAME: why not.
    """

    complaints: list
    hash: str
    changed: dict
    in_force: dict
    refused: dict


def read(text="", remote=None, good=None):
    """Settings from the text of a settings.toml, and from Notehub's variables (NAME: text), which go before it.

    A wrong value is left out and its default used, with one line that names key, value and what is allowed. Instead of
    a wrong variable, what `good` has under its name is used.
    """
    return _Reader(Settings(), text, remote or {}, good or {}).found


class _Reader:
    def __init__(self, found, text, remote, good):
        self.found = found
        self.complaints = found.complaints = []
        found.refused = {}
        found.in_force = {}
        values = {}
        for name, default, _ in TABLE:
            values[name] = default
        for number, line in enumerate(text.split("\n"), 1):
            self._take(values, number, line.strip())
        for name, default, allowed in TABLE:
            if name in remote:
                self._take_remote(values, name, remote[name], good.get(name), default, allowed)
        self._make_room(values)
        self._leave_time(values)
        self._close(values)

    def _close(self, values):
        self.found.changed = {}
        hashed = []
        for name, default, _ in TABLE:
            value = values[name]
            setattr(self.found, name.lower(), value)
            if name != KEY:
                hashed.append("%s=%s" % (name, value))
                if value != default:
                    self.found.changed[name] = value
        self.found.hash = "%08x" % crc32("\n".join(hashed).encode())

    def _make_room(self, values):
        """A ring that cannot hold one window would keep the board from ever capturing."""
        needed = 6 * values["SAMPLES"] + _FRAME_OVERHEAD
        if values["RING_BYTES"] < needed:
            self.complaints.append(
                "%s: RING_BYTES = %d holds no window of SAMPLES = %d, which may take %d bytes; using that"
                % (FILE, values["RING_BYTES"], values["SAMPLES"], needed)
            )
            values["RING_BYTES"] = needed
        self.found.least_ring_bytes = needed

    def _leave_time(self, values):
        """A board that is measuring is silent, and no reason for a reset."""
        # a quarter of the time until it is renewed, five tries of a window, a slow part
        needed = 8 * values["SAMPLES"] // values["ODR_HZ"]
        if 0 < values["WATCHDOG_S"] < needed:
            self.complaints.append(
                "%s: WATCHDOG_S = %d is less than SAMPLES = %d at ODR_HZ = %d may take; using %d"
                % (FILE, values["WATCHDOG_S"], values["SAMPLES"], values["ODR_HZ"], needed)
            )
            values["WATCHDOG_S"] = needed

    def _take(self, values, number, line):
        if not line or line.startswith("#") or line.startswith("["):
            return
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals:
            self._complain(number, "'%s' is not NAME = value" % (KEY if KEY in line else _shown(line)))
            return
        for known, default, allowed in TABLE:
            if known == name:
                try:
                    values[name] = check(name, _unquote(value.strip()), default, allowed)
                except ValueError as error:
                    self._complain(number, "%s; using %s" % (error, repr(default)))
                return
        if not name.startswith("CIRCUITPY_"):  # those are CircuitPython's own
            self._complain(number, "%s is no setting of this firmware; see settings.example.toml" % _shown(name))

    def _take_remote(self, values, name, text, good, default, allowed):
        try:
            if name in LOCAL:
                raise ValueError("%s can only be set on the board" % name)
            values[name] = check(name, text, default, allowed)
            self.found.in_force[name] = text
            return
        except (AttributeError, TypeError, ValueError) as error:
            self.found.refused[name] = str(error)
        try:
            values[name] = check(name, good, default, allowed)
            self.found.in_force[name] = good
        except (AttributeError, TypeError, ValueError):  # there is none, or the firmware has become stricter
            pass

    def _complain(self, number, message):
        if len(self.complaints) < _MOST_COMPLAINTS:
            self.complaints.append("%s line %d: %s" % (FILE, number, message))
        elif len(self.complaints) == _MOST_COMPLAINTS:
            self.complaints.append("%s line %d, and maybe more: wrong, too" % (FILE, number))


def check(name, text, default, allowed):
    """The value that `text` stands for. Raises ValueError naming key, value and what is allowed."""
    if isinstance(default, str):
        value = text
    else:
        try:
            value = int(text)
        except ValueError:
            value = None
    if name in CHOICES:
        if value not in allowed:
            raise ValueError(
                "%s = %s; must be one of %s" % (name, _shown(text), ", ".join([str(one) for one in allowed]))
            )
    elif name == KEY:
        if text and not is_key(text):
            raise ValueError("%s must be 32 hex digits, as `judder key` prints them" % name)
    elif isinstance(default, str):
        if len(text.encode()) > allowed[1]:
            raise ValueError("%s is %d bytes long; at most %d" % (name, len(text.encode()), allowed[1]))
    elif value is None or not (allowed[0] <= value <= allowed[1] or value in allowed[2:]):
        raise ValueError("%s = %s; must be a whole number from %s" % (name, _shown(text), limits(allowed)))
    return value


def is_key(text):
    """Whether it is 32 hex digits."""
    return isinstance(text, str) and len(text) == 32 and not text.lower().strip("0123456789abcdef")


def limits(allowed):
    return "%d to %d" % allowed[:2] + "".join([", or %d" % one for one in allowed[2:]])


def load(path=FILE, remote=None, good=None):
    """Settings from the board's own file, all defaults without one that can be read; and from Notehub's variables."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) > _MOST_BYTES:
                complaint = "%s is longer than %d bytes: these are no settings; using defaults" % (path, _MOST_BYTES)
                return _without(complaint, remote, good)
            file.seek(0)
            text = file.read().decode()
            text = text[1:] if text[:1] == "\ufeff" else text  # Notepad's byte order mark
            return read(text, remote, good)
    except OSError:
        return read("", remote, good)
    except ValueError:  # UnicodeError on every runtime
        return _without("%s is not UTF-8 text: save it as such; using defaults" % path, remote, good)


def _without(complaint, remote, good):
    found = read("", remote, good)
    found.complaints.append(complaint)
    return found


def _shown(text):
    """Its beginning as a console can show it: nothing that would move the cursor."""
    shown = "".join([one if " " <= one < "\x7f" or one >= "\xa0" else "?" for one in text[:_SHOWN]])
    return shown if len(text) <= _SHOWN else shown + "..."


def _unquote(value):
    """The text of a TOML string or number, without a comment behind it."""
    if value[:1] in ('"', "'"):
        end = value.find(value[0], 1)
        return value[1:end] if end > 0 else value
    return value.split("#")[0].strip()
