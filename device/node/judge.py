"""What windows are worth the airtime (settings UPLOAD, EVENT_..., BEFORE_EVENT), and what is known of the others.

An event is a window whose score, class, level or kurtosis exceeds its threshold. Every window that is scored counts in
the board's reports, sent or not: as one of its histogram, and in mean and variance of each feature since the last one,
which tell how far the machine has drifted from what the model was trained on.
"""

import gc

from node import clock
from node.policy import LEVEL, MODEL_FILE, NO_MEMORY, SCHEDULE, SCORE, Policy
from node.window import GAP

BINS = 16  # of the histogram; the threshold lies between the middle ones
FEATURES = 128  # of more than that no mean and variance is kept
STANDARD_GRAVITY = 9.80665


class UnfitError(ValueError):
    """A window that the model cannot score, and why."""


def load(opened):
    """(model, complaint) of the file that `opened()` gives: one of the two is None. The model has proved itself."""
    try:
        file = opened()
        try:
            from node.model import Model  # only now: most boards have none

            gc.collect()
            model = Model(file)
            model.prove()
            return model, None
        finally:
            file.close()
    except MemoryError:
        return None, NO_MEMORY
    except Exception as error:  # ModelError; but also a drive that cannot be read, or a runtime that lacks something
        return None, "%s is not used: %s" % (MODEL_FILE, error)


class Judge(Policy):
    """Sends what the settings want sent. `refusal`: why a model is not used; `daily_room` is that of policy.choose."""

    def __init__(self, values, model, refusal=None, daily_room=lambda: 1):
        self.model = model
        self.counts = {"scored": 0, "events": 0, "unsent": 0, "unfit": 0}
        super().__init__(refusal)
        self._unfit_because = None
        self._fits = True  # the window before did
        self._held = []  # frames from before an event that may yet come
        self._settings = values
        self._daily_room = daily_room
        self._is_event = None  # SCORE or LEVEL, of the window judged last
        self._next_scheduled_us = self._next_event_us = clock.now_us()
        self._histogram = [0] * BINS
        self._windows = 0  # in mean and variance
        self._means = self._squares = None

    def adopt(self, values):
        self._settings = values
        return True

    def complaints(self):
        found = super().complaints()
        if self._settings.upload == "schedule" and not self._settings.upload_every_s:
            found.append("UPLOAD = schedule with UPLOAD_EVERY_S = 0: no window is sent, only reports")
        if self._settings.upload == "score" and self.model is None and not self._levels():
            found.append(
                "UPLOAD = score, but there is no model, EVENT_RMS_MG or EVENT_KURTOSIS to score with:"
                " only one window every UPLOAD_EVERY_S is sent"
            )
        return found

    def judge(self, window):  # pyright: ignore[reportIncompatibleMethodOverride]  # None, too
        window.scores = self._score(window)
        self._is_event = self._event(window)
        self.counts["events"] += self._is_event is not None
        if self._settings.upload == "all":
            return self._is_event or SCHEDULE
        now_us = clock.now_us()
        if self._settings.upload == "score" and self._is_event and now_us >= self._next_event_us:
            return self._is_event
        if self._settings.upload != "off" and self._is_scheduled(now_us):
            return SCHEDULE
        self.counts["unsent"] += 1
        return None

    def _is_scheduled(self, now_us):
        """A sample of the rest may wait for a better day, an event may not."""
        return self._settings.upload_every_s and now_us >= self._next_scheduled_us and self._daily_room() > 0

    def sent(self, trigger):
        now_us = clock.now_us()
        self._held = []  # no longer right before what follows
        if trigger != SCHEDULE:
            self._next_event_us = now_us + self._settings.event_every_s * 1000000
        every_us = self._settings.upload_every_s * 1000000
        if trigger == SCHEDULE and every_us:
            missed = max(0, now_us - self._next_scheduled_us) // every_us
            self._next_scheduled_us += (missed + 1) * every_us

    def hold(self, frame):
        most = self._settings.before_event
        if self._settings.upload != "score" or not most or self._is_event:
            self._held = []  # what came before an event is not right before the next one
            return
        self._held = self._held[max(0, len(self._held) + 1 - most) :]
        try:
            self._held.append((clock.now_us(), bytearray(frame)))
        except MemoryError:
            self._held = []

    def take_held(self):
        held, self._held = self._held, []
        every_us = self._settings.capture_every_s * 1000000
        oldest_us = clock.now_us() - len(held) * every_us - every_us // 2  # captures may have paused meanwhile
        return [frame for held_us, frame in held if held_us >= oldest_us]

    def followed(self):
        self.counts["unsent"] -= 1

    def members(self):
        found = super().members()
        if self.model is not None or any(self.counts.values()):
            found.update(self.counts)
        if self._unfit_because:
            found["unfit_because"] = self._unfit_because
        if self.model is not None:
            low, step = self._bins()
            found["score_low"], found["score_step"] = _short(low), _short(step)
            found["scores"] = self._histogram
        if self._means is not None and self._squares is not None:
            found["feature_windows"] = self._windows
            found["feature_mean"] = [_short(mean, 6) for mean in self._means]
            found["feature_variance"] = [_short(square / self._windows) for square in self._squares]
        return found

    def reported(self):
        # mean and variance start anew
        self._windows = 0
        self._means = self._squares = None

    def _score(self, window):
        if self.model is None:
            return None
        gc.collect()
        return self._try(lambda: self._scored(window))

    def _try(self, judge):
        """What it returns; None, and the reports say why, when it fails: the window is good, and is not to suffer."""
        try:
            return judge()
        except MemoryError:
            reason = "no memory to judge it"
        except UnfitError as error:
            reason = str(error)
        except Exception as error:
            reason = "judging failed: %r" % (error,)
        if self._fits:
            print("windows are not judged: %s" % reason)
        self._fits = False
        self._unfit_because = reason
        self.counts["unfit"] += 1
        return None

    def _scored(self, window):
        if window.flags & GAP:
            raise UnfitError("gaps in the window")
        reason = self.model.unfit(window.samples, window.interval_ns / 1e9, window.full_scale_g)
        if reason:
            raise UnfitError(reason)
        scores = self.model.score(window.counts, _scale(window))
        self._note(scores)
        self.counts["scored"] += 1
        self._fits = True
        return scores

    def _event(self, window):
        """SCORE or LEVEL if the window is one."""
        scores, values = window.scores, self._settings
        if scores is not None:
            threshold = values.event_anomaly / 100 if values.event_anomaly else self.model.anomaly_threshold
            if scores.anomaly is not None and scores.anomaly > threshold:
                return SCORE
            threshold = values.event_class_percent / 100 if values.event_class_percent else self.model.class_threshold
            if scores.probabilities and scores.class_name not in self.model.normal and scores.probability >= threshold:
                return SCORE
        return self._try(lambda: self._loud(window)) if self._levels() else None

    def _loud(self, window):
        values = self._settings
        rms_mg, kurtosis = level(window)
        loud = values.event_rms_mg and rms_mg >= values.event_rms_mg
        return LEVEL if loud or (values.event_kurtosis and kurtosis * 100 >= values.event_kurtosis) else None

    def _levels(self):
        return self._settings.event_rms_mg or self._settings.event_kurtosis

    def _note(self, scores):
        from node import vectors

        for values in (scores.features, scores.probabilities, (scores.anomaly or 0,)):
            if not all(value - value == 0 for value in values):  # no JSON takes them
                raise ValueError("a feature or score is no number")
        low, step = self._bins()
        place = int(max(0, min(BINS - 1, (self._deciding(scores) - low) / step)))
        self._histogram[place] += 1
        if len(scores.features) > FEATURES:
            return
        if self._means is None:
            self._means = vectors.vector([0] * len(scores.features))
            self._squares = vectors.vector([0] * len(scores.features))
        self._windows += 1
        vectors.note(scores.features, self._means, self._squares, self._windows)

    def _deciding(self, scores):
        """The anomaly; without one, how probable all classes together are that are events."""
        if scores.anomaly is not None:
            return scores.anomaly
        total = 0
        for name, probability in zip(self.model.classes, scores.probabilities):
            total += 0 if name in self.model.normal else probability
        return total

    def _bins(self):
        """Where the histogram starts, and the width of its bins; the outermost are open."""
        threshold = self.model.anomaly_threshold
        if threshold is None:
            return 0, 1 / BINS
        step = self.model.anomaly_spread or max(abs(threshold), 0.1) / 4
        return threshold - step * BINS / 2, step


def level(window):
    """RMS of all axes together in mg, and the highest excess kurtosis of one; both around the mean.

    In plain loops: a small heap has no room for a vector of samples.
    """
    counts, n = window.counts, window.samples
    total, highest = 0, -3
    for axis in range(3):
        middle = counts[axis]
        first = second = 0
        for i in range(axis, 3 * n, 3):
            off = counts[i] - middle
            first += off
            second += off * off
        mean = first / n
        variance = second / n - mean * mean
        total += variance
        if variance > 0:
            fourth = 0.0
            for i in range(axis, 3 * n, 3):
                off = counts[i] - middle - mean
                fourth += off * off * off * off
            highest = max(highest, fourth / n / (variance * variance) - 3)
    return total**0.5 * window.sensitivity_ug / 1000, highest


def _scale(window):
    """m/s2 per count."""
    return window.sensitivity_ug * STANDARD_GRAVITY / 1000000


def _short(value, digits=4):
    """Each byte of a report costs airtime."""
    return float("%.*g" % (digits, value))
