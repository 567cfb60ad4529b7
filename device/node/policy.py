"""Which windows are sent: all, unless there is a model or a setting that says otherwise (node/judge.py)."""

import os

SCHEDULE, SCORE, LEVEL, BEFORE_EVENT = range(4)  # trigger of a frame
MODEL_FILE = "model.bin"


class Policy:
    """Send all."""

    model = None

    def complaints(self):
        """What of the settings cannot work, and why a model is not used."""
        return []

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
        return {}

    def reported(self):
        """It has."""


def choose(values, daily_room):
    """The policy that settings and drive ask for. `daily_room()`: bytes that the day's budget has left."""
    levels = values.event_rms_mg or values.event_kurtosis
    if values.upload == "all" and not levels and MODEL_FILE not in os.listdir():
        return Policy()
    from node import judge  # only now: it takes 10 KB, and most boards send all

    return judge.Judge(values, *judge.load(MODEL_FILE), daily_room)
