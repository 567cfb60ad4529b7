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
    """Take over Notehub's variables for this board; False if the Notecard will not give them. Raises LinkError."""
    uplink = node.uplink
    try:
        found = uplink.request({"req": "env.get", "names": [row[0] for row in settings.TABLE]}).get("body") or {}
    except RefusedError as error:
        print("%s: settings stay as they are" % error)
        return False
    remote = {name.upper(): found[name] for name in found}
    good = uplink.note(GOOD_NOTE) or {}
    values = _adopted(node, remote, good)
    corrected = [line for line in values.complaints if any(name in line for name in remote)]
    for line in list(values.refused.values()) + corrected:
        print("not set from afar: %s" % line)
    print("settings %s: %s" % (values.hash, values.changed))
    body = {"hash": values.hash, "settings": values.changed}
    if values.refused:
        body["refused"] = values.refused
    try:
        if values.in_force != good:
            uplink.keep_note(GOOD_NOTE, values.in_force)
        uplink.request({"req": "note.add", "file": "settings.qo", "body": body, "sync": True})
    except RefusedError as error:
        print("%s: settings are in force, and nobody is told" % error)
    return True


def _adopted(node, remote, good):
    """The settings that are in force now: with the last good number of samples, or what there is, if need be."""
    wanted = remote.get("SAMPLES")
    for samples in (wanted, good.get("SAMPLES", wanted), str(node.window.samples)):
        if samples is not None:
            remote["SAMPLES"] = samples
        values = settings.load(remote=remote, good=good)
        if samples != wanted:
            values.refused["SAMPLES"] = "SAMPLES = %s; memory has no room for so many" % wanted
        try:
            adopt(node, values)
            return values
        except MemoryError:
            pass
    raise MemoryError


def adopt(node, values):
    """Use other settings from the next window on. Raises MemoryError before it has changed anything."""
    from node.node import TEXT_BYTES, clock, has_room_for_model

    window = node.window
    if values.samples != window.samples:
        window = Window(values.samples)
        window.boot, window.sequence, window.request = node.window.boot, node.window.sequence, node.window.request
        size = frame.max_length(values.samples, TEXT_BYTES + len(values.label) + len(values.session))
        buffer = bytearray(size) if size > len(node.frame) else node.frame
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


def heed(node, asked, in_queue):
    """A window is wanted now: the next one will be it. What is no order of ours, or an old one, is put away."""
    wanted = asked.get("id" if in_queue else "capture")
    if isinstance(wanted, str) and 0 < len(wanted.encode()) <= ID_BYTES:
        if wanted not in _answered(node.uplink):
            print("asked for a window: %s" % wanted)
            node.window.request = wanted
            return
    else:
        print("asked for a window without an id of 1 to %d bytes: %r" % (ID_BYTES, asked))
    if in_queue:
        node.uplink.optional({"req": "note.get", "file": ORDERS, "delete": True})


def answer(uplink, wanted, key):
    """The window that was asked for is kept under this key. Raises LinkError, but for what the Notecard will not do."""
    answered = [one for one in _answered(uplink) if one != wanted] + [wanted]
    body = {"id": wanted, "boot": "%08x" % key[0], "sequence": key[1]}
    try:
        uplink.keep_note(ASKED_NOTE, {"ids": answered[-REMEMBERED:]})
        uplink.request({"req": "note.add", "file": "capture.qo", "body": body, "sync": True})
    except RefusedError as error:
        print("%s: nobody is told of the window for %s" % (error, wanted))
    if (uplink.optional({"req": "note.get", "file": ORDERS}).get("body") or {}).get("id") == wanted:
        uplink.optional({"req": "note.get", "file": ORDERS, "delete": True})  # not one that a signal asked for


def _answered(uplink):
    return (uplink.note(ASKED_NOTE) or {}).get("ids", [])
