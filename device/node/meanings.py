"""What each setting means, for settings.example.toml and for people: 3 KB that the firmware can do without."""

from node.settings import CHOICES, KEY, TABLE, limits

MEANINGS = {
    "PRODUCT_UID": "Notehub product; empty keeps what the Notecard already has",
    "DEVICE_SN": "serial number shown in Notehub, such as pump-3",
    "ROUTE": "alias of the Notehub proxy route to the server",
    "LABEL": "label for the windows' class in training; empty: labelled on the server",
    "SESSION": "name of a measuring campaign, sent with each window",
    "FRAME_KEY": "key to sign frames with, from `judder key` (docs/operations.md); empty: the one in the "
    "Notecard, if any",
    "ODR_HZ": "nominal output data rate",
    "FULL_SCALE_G": "full scale",
    "SAMPLES": "samples in a window",
    "CAPTURE_EVERY_S": "seconds from the start of one window to the next",
    "UPLOAD": "which windows are sent: all, one every UPLOAD_EVERY_S, events too (docs/models.md), or none",
    "UPLOAD_EVERY_S": "seconds between windows sent as samples of the rest; 0: none",
    "EVENT_ANOMALY": "anomaly of an event, in hundredths; 0: the model's own",
    "EVENT_CLASS_PERCENT": "probability of an event's class; 0: the model's own",
    "EVENT_RMS_MG": "level of an event, all axes together; 0: never",
    "EVENT_KURTOSIS": "excess kurtosis of an event on one axis, in hundredths; 0: never",
    "EVENT_EVERY_S": "least seconds between events that are sent",
    "BEFORE_EVENT": "windows from right before an event that are sent, too; they wait in RAM",
    "RING_BYTES": "RAM for windows that wait for the server",
    "DROP": "what gives way when windows wait and nothing has room: the newest are not captured, or "
    "the oldest are dropped",
    "DAILY_KB": "most kB sent in 24 hours, 1 for each connection included; 0: no limit",
    "REPORT_EVERY_S": "seconds between the board's reports on itself",
    "POST_BYTES": "most bytes in one web.post, unless a single window is longer",
    "POST_TIMEOUT_S": "how long the Notecard waits for the server's answer",
    "WATCHDOG_S": "how long the board may be silent before the Notecard pulls ATTN to reset it "
    "(docs/operations.md); 0: off",
    "LISTEN_EVERY_S": "how often the board asks its Notecard for what Notehub has for it: settings, captures, updates",
    "TRANSFER": "how windows reach the Notecard: our chunks, or note-python's helper",
    "SENSOR_ADDRESS": "I2C address of the LIS3DH: 24 is 0x18, 25 is 0x19",
}


def example():
    """The text of settings.example.toml."""
    lines = ["# Copy to settings.toml on the board and change what differs. Every line is optional."]
    for name, default, allowed in TABLE:
        if name in CHOICES:
            limited = ", ".join([str(one) for one in allowed])
        elif name == KEY:
            limited = "32 hex digits"
        elif isinstance(default, str):
            limited = "at most %d bytes" % allowed[1]
        else:
            limited = limits(allowed)
        value = '"%s"' % default if isinstance(default, str) else "%d" % default
        lines.append("\n# %s (%s)\n%s = %s" % (MEANINGS[name], limited, name, value))
    return "\n".join(lines) + "\n"
