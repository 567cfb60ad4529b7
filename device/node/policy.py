"""Which windows are sent: all, unless there is a model or a setting that says otherwise (node/judge.py)."""

import os

SCHEDULE, SCORE, LEVEL, BEFORE_EVENT = range(4)  # trigger of a frame
MODEL_FILE = "model.bin"
NO_MEMORY = MODEL_FILE + " is not used: memory has no room for it; fewer SAMPLES or a smaller model need less"


class Policy:
    """Send all. `refusal`: why a model is not used."""

    model = None

    def __init__(self, refusal=None):
        self._refusal = refusal

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


def choose(values, daily_room, has_room):
    """The policy that settings and drive ask for. `daily_room()`: bytes that the day's budget has left.

    `has_room(model_bytes)`: whether memory has room for a model beside windows.
    """
    try:
        model_bytes = os.stat(MODEL_FILE)[6]
    except OSError:
        model_bytes = None
    refusal = NO_MEMORY if model_bytes is not None and not has_room(model_bytes) else None
    levels = values.event_rms_mg or values.event_kurtosis
    if values.upload == "all" and not levels and (refusal or model_bytes is None):
        return Policy(refusal)
    from node import judge  # only now: it takes 10 KB, and most boards send all

    loaded = (None, refusal) if refusal else judge.load(MODEL_FILE)
    return judge.Judge(values, *loaded, daily_room)
