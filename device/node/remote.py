"""What is wanted from afar, as Notehub's environment variables and notes say it; loaded only while it is needed.

Settings: variables named as in settings.toml, for the device, its fleet or the project. What is in force is told in the
Notefile settings.qo, and kept on the Notecard: the last good value is used while a new one is wrong.

Captures: a note in capture.qi with body {"id": ID}, or a signal {"capture": ID}. The window carries the id; a note
in capture.qo answers with its key. An id that was answered is not captured for again.
"""

import gc

from node import frame, rice, settings
from node.policy import choose
from node.uplink import ORDERS, RefusedError
from node.window import Window

GOOD_NOTE = "settings"
ASKED_NOTE = "asked"
REMEMBERED = 16  # ids
ID_BYTES = 32


def hear(node):
    """Take over Notehub's variables for this board. Raises LinkError."""
    uplink = node.uplink
    names = [row[0] for row in settings.TABLE]
    remote = uplink.request({"req": "env.get", "names": names}).get("body") or {}
    remote = {name.upper(): remote[name] for name in remote}
    good = uplink.note(GOOD_NOTE) or {}
    values = settings.load(remote=remote, good=good)
    try:
        adopt(node, values)
    except MemoryError:
        remote.pop("SAMPLES", None)
        values = settings.load(remote=remote, good=good)
        values.refused["SAMPLES"] = "memory has no room for so many"
        adopt(node, values)
    for name in values.refused:
        print("not set from afar: %s" % values.refused[name])
    print("settings %s: %s" % (values.hash, values.changed))
    if values.in_force != good:
        uplink.keep_note(GOOD_NOTE, values.in_force)
    body = {"hash": values.hash, "settings": values.changed}
    if values.refused:
        body["refused"] = values.refused
    uplink.request({"req": "note.add", "file": "settings.qo", "body": body, "sync": True})


def adopt(node, values):
    """Use other settings from the next window on. Raises MemoryError before it has changed anything."""
    from node.node import TEXT_BYTES, clock, has_room_for_model

    window = node.window
    if values.samples != window.samples:
        window = Window(values.samples)
        window.boot, window.sequence, window.request = node.window.boot, node.window.sequence, node.window.request
        size = frame.max_length(values.samples, TEXT_BYTES + len(values.label) + len(values.session))
        buffer = bytearray(max(size, len(node.frame)))
        rice.reserve(values.samples)
        node.frame = buffer
    node.window, node.settings = window, values
    if not node.policy.adopt(values):
        node.policy = choose(values, node.may_send, lambda size: has_room_for_model(values, size))
    node.uplink.adopt(values)
    node.budget.daily_bytes = values.daily_kb * 1000
    node.reports.every_us = values.report_every_s * 1000000
    node.ring.drops_oldest = values.drop == "oldest"
    node.post_bytes = values.post_bytes
    node.accelerometer = None  # found anew, at what is now its address and with what is now its rate
    now_us = clock.now_us()
    node.next_capture_us = min(node.next_capture_us, now_us + values.capture_every_s * 1000000)
    node.next_watch_us = node.next_listen_us = now_us
    if node.identity is not None:
        node.identity = node.identify()
        node.fit_ring()
    gc.collect()


def heed(node, asked):
    """A window is wanted now: the next one will be it. What is no order of ours, or an old one, is put away."""
    wanted = asked.get("capture", asked.get("id"))
    if isinstance(wanted, str) and 0 < len(wanted.encode()) <= ID_BYTES:
        if wanted not in _answered(node.uplink):
            print("asked for a window: %s" % wanted)
            node.window.request = wanted
            return
    else:
        print("asked for a window without an id of 1 to %d bytes: %r" % (ID_BYTES, asked))
    _put_away(node.uplink, wanted)


def answer(uplink, wanted, key):
    """The window that was asked for is kept, under this key. Raises LinkError."""
    answered = [one for one in _answered(uplink) if one != wanted] + [wanted]
    uplink.keep_note(ASKED_NOTE, {"ids": answered[-REMEMBERED:]})
    body = {"id": wanted, "boot": "%08x" % key[0], "sequence": key[1]}
    uplink.request({"req": "note.add", "file": "capture.qo", "body": body, "sync": True})
    _put_away(uplink, wanted)


def _answered(uplink):
    return (uplink.note(ASKED_NOTE) or {}).get("ids", [])


def _put_away(uplink, wanted):
    """Take this order out of the queue; a signal was never there."""
    order = {"req": "note.get", "file": ORDERS}
    try:
        if uplink.request(order).get("body", {}).get("id") == wanted:
            uplink.request({"req": "note.get", "file": ORDERS, "delete": True})
    except RefusedError:  # the queue is empty
        pass
