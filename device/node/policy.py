"""Which windows are sent: all, unless there is a model or a setting that says otherwise (node/judge.py)."""

import os
import sys

SCHEDULE, SCORE, LEVEL, BEFORE_EVENT, ASKED = range(5)  # trigger of a frame
MODEL_FILE = "model.bin"
NO_MEMORY = MODEL_FILE + " is not used: memory has no room for it; fewer SAMPLES or a smaller model need less"


class Policy:
    """Send all. `refusal`: why a model is not used."""

    model = None

    def __init__(self, refusal=None):
        self._refusal = refusal

    def adopt(self, values):
        """Use other settings. False if they need another policy."""
        return not wants_judge(values)

    def complaints(self):
        """What of the settings cannot work, and why a model is not used."""
        return [self._refusal] if self._refusal else []

    def judge(self, window):
        """The trigger to send the window with; None: it is not to be sent now. `window.scores` is set if it can be."""
        return SCHEDULE

    def sent(self, trigger):
        """The window has been kept for sending."""

    def hold(self, frame):
        """Keep the frame of a window that is not sent: an event may follow."""

    def take_held(self):
        """Such frames, oldest first."""
        return []

    def followed(self):
        """One of them is sent after all."""

    def members(self):
        """What a report says of the windows that were judged."""
        return {"model_refused": self._refusal} if self._refusal else {}

    def reported(self):
        """It has."""


def wants_judge(values):
    return values.upload != "all" or values.event_rms_mg or values.event_kurtosis


def choose(values, daily_room, has_room):
    """The policy that settings and drive ask for. `daily_room()`: bytes that the day's budget has left.

    `has_room(model_bytes)`: whether memory has room for a model beside windows. The model is that of the newest update
    that can be used (slots.py), or else the one that deploy or an image has put on the drive.
    """
    refusal = None
    slots = sys.modules.get("slots")
    while slots is not None and slots.running[slots.MODEL] is not None:
        slot = slots.running[slots.MODEL]
        model, refusal = load(slot.content, slot.length, has_room)
        if model is not None:
            return judging(values, model, None, daily_room)
        print("%s cannot be used: %s" % (slot.version, refusal))
        if refusal == NO_MEMORY and slot.state == slots.PROVEN:  # with other settings it has room again
            return judging(values, None, refusal, daily_room) if wants_judge(values) else Policy(refusal)
        slot.end(slots.FAILED)
        slots.enter(slots.MODEL)
    try:
        size = os.stat(MODEL_FILE)[6]
    except OSError:
        if not wants_judge(values):
            return Policy(refusal)
        return judging(values, None, refusal, daily_room)
    model, refusal = load(lambda: open(MODEL_FILE, "rb"), size, has_room)  # noqa: SIM115  # closed where it is read
    if model is None and not wants_judge(values):
        return Policy(refusal)
    return judging(values, model, refusal, daily_room)


def load(opened, size, has_room):
    """(model, complaint): one of the two is None."""
    if not has_room(size):
        return None, NO_MEMORY
    from node import judge

    return judge.load(opened)


def judging(values, model, refusal, daily_room):
    from node import judge  # only now: it takes 10 KB, and most boards send all

    return judge.Judge(values, model, refusal, daily_room)
