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
    ("TRANSFER", "chunks", ("chunks", "stock")),
    ("SENSOR_ADDRESS", 24, (24, 25)),
)

_MOST_BYTES = 16384  # of the file; all settings with their comments take 3000
_MOST_COMPLAINTS = 12  # or a file of something else would fill the heap with them
_SHOWN = 64  # characters of what is wrong
_FRAME_OVERHEAD = 3072  # header, texts, gaps and CRC at their longest (node.frame.max_length)
KEY = "FRAME_KEY"  # never shown, and not in the hash: the same board has it here or in its Notecard
CHOICES = ("ODR_HZ", "FULL_SCALE_G", "UPLOAD", "DROP", "TRANSFER", "SENSOR_ADDRESS")


class Settings:
    """The effective value of each setting as an attribute in lower case, and what was wrong in `complaints`.

    `least_ring_bytes`: what one window may take.

    A wrong value is left out and its default used, with one line that names key, value and what is allowed.
    """

    def __init__(self, text=""):
        self.complaints = []
        values = {}
        for name, default, _ in TABLE:
            values[name] = default
        for number, line in enumerate(text.split("\n"), 1):
            self._take(values, number, line.strip())
        self._make_room(values)
        self._leave_time(values)
        for name in values:
            setattr(self, name.lower(), values[name])
        hashed = ["%s=%s" % (row[0], values[row[0]]) for row in TABLE if row[0] != KEY]
        self.hash = "%08x" % crc32("\n".join(hashed).encode())

    def _make_room(self, values):
        """A ring that cannot hold one window would keep the board from ever capturing."""
        needed = 6 * values["SAMPLES"] + _FRAME_OVERHEAD
        if values["RING_BYTES"] < needed:
            self.complaints.append(
                "%s: RING_BYTES = %d holds no window of SAMPLES = %d, which may take %d bytes; using that"
                % (FILE, values["RING_BYTES"], values["SAMPLES"], needed)
            )
            values["RING_BYTES"] = needed
        self.least_ring_bytes = needed

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


def load(path=FILE):
    """Settings from the board's own file; all defaults when there is none, or none that can be read."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) > _MOST_BYTES:
                return _without(
                    "%s is longer than %d bytes: these are no settings; using defaults" % (path, _MOST_BYTES)
                )
            file.seek(0)
            text = file.read().decode()
            return Settings(text[1:] if text[:1] == "\ufeff" else text)  # Notepad's byte order mark
    except OSError:
        return Settings()
    except ValueError:  # UnicodeError on every runtime
        return _without("%s is not UTF-8 text: save it as such; using defaults" % path)


def _without(complaint):
    settings = Settings()
    settings.complaints.append(complaint)
    return settings


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
