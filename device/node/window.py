"""A window: consecutive samples at one rate, the interval between them, and every loss.

The part's own clock sets the instants of the samples, and its rate is some percent off nominal. So the interval is
measured: each look at the FIFO's level says how many samples existed at that moment, and a straight line through
(samples, time) has the interval as its slope. The looks are spread over the phase of the sample clock on purpose,
because looks in step with it would all round the same way.

A sample is lost when the FIFO overflows. Then the window is taken again; if that does not help, it is kept with
the gap marked. The line is fitted with one slope and an offset for each gap-free segment, and the step from one
offset to the next, in intervals, is the number of samples lost between them. A segment also ends where a stall may
have overflowed the FIFO between a look and the read after it, which OVRN does not show; no step there, no loss.
"""

from array import array

from node import clock, loops

GAP = 1
OVERRUN = 2
SATURATED = 4
SLOW_BUS = 8

UNKNOWN_LOSS = 0xFFFF
UNKNOWN_SIGMA = 0xFFFFFFFF
IN_NEXT = 0xFFFE  # a gap so soon before another that only the sum is known, which the other one carries
SURE = 8  # looks on both sides that tell no step from a step of one sample for sure
_LEAST_LOOKS = 512  # one in 2 ms of 1024 samples, and some more; with longer windows, a batch of 8 takes one


class Window:
    """Preallocated room for one window and what is known about it; filled by the accelerometer, read by `frame.encode`.

    `counts` is an array('h') of x, y, z in turn. Times are microseconds of clock.now_us.
    """

    def __init__(self, samples):
        self.samples = samples
        self.counts = array("h", bytes(6 * samples))
        self.gaps = []
        self.flags = 0
        self.interval_ns = 0
        self.interval_sigma_ns = UNKNOWN_SIGMA
        self.first_sample_us = 0
        self.odr_hz = 0
        self.full_scale_g = 2
        self.mode = 0
        self.sensitivity_ug = 0
        self.temperature = -32768
        self.started_at_us = 0
        self.started_at_uncertainty_ms = 0
        self.trigger = 0
        self.scores = None  # of a model: `anomaly`, `class_name`, `probability`
        self.request = ""  # id of the request that it was captured for
        self.boot = 0
        self.sequence = 0
        # looks at the FIFO level: how many samples existed, when, how long the look took; segments by first look
        self._most_looks = max(_LEAST_LOOKS, samples // 4)
        self._existed = array("i", bytes(4 * self._most_looks))
        self._seen_us = array("i", bytes(4 * self._most_looks))
        self._took_us = array("i", bytes(4 * self._most_looks))
        self._looks = 0
        self._segments = [0]
        self._origin_us = 0

    @property
    def samples_lost(self):
        lost = 0
        for _, count in self.gaps:
            if count == UNKNOWN_LOSS:
                return UNKNOWN_LOSS
            if count != IN_NEXT:
                lost += count
        return min(lost, IN_NEXT - 1)

    def right_justify(self, shift):
        """Turn left-justified register values into counts, and flag those at the end of the code range."""
        if loops.right_justify(self.counts, len(self.counts), shift):
            self.flags |= SATURATED

    def clear(self, origin_us):
        self.gaps = []
        self.flags = 0
        self._looks = 0
        self._segments = [0]
        self._origin_us = origin_us

    def look(self, existed, before_us, after_us):
        """Note that `existed` samples existed some time between two readings of the clock."""
        if self._looks < self._most_looks:
            self._existed[self._looks] = existed
            self._seen_us[self._looks] = (before_us + after_us) // 2 - self._origin_us
            self._took_us[self._looks] = after_us - before_us
            self._looks += 1

    def gap(self, sample, overrun):
        """Note that samples may be missing before `sample`; `measure` finds out how many, if any."""
        if overrun:
            self.flags |= OVERRUN
        if sample == 0:  # nothing of the window was there yet: it just starts later
            self._looks = 0
        elif self.gaps and self.gaps[-1][0] == sample:
            self.gaps[-1] = (sample, UNKNOWN_LOSS)
        else:
            self.gaps.append((sample, UNKNOWN_LOSS))
            self._segments.append(self._looks)

    def measure(self):
        """Fit the interval and, from the steps between segments, the losses."""
        suspected = len(self.gaps)
        fits = self._fit()
        self._count_losses(fits)
        if len(self.gaps) < suspected:
            fits = self._fit()  # segments that turned out to be one tell the interval better together
        if fits[0] is not None and self.interval_ns:
            # a look finds the sample clock half a period past the newest sample on average
            self.first_sample_us = self._origin_us + (self._offset_ns(fits[0]) + self.interval_ns // 2) // 1000

    def _fit(self):
        quickest_us = min(memoryview(self._took_us)[: self._looks]) if self._looks else 0  # a slice would be a copy
        fits = []
        for first, last in zip(self._segments, self._segments[1:] + [self._looks]):
            fits.append(self._sums(first, last, 2 * quickest_us))
        self._fit_interval(fits)
        return fits

    def _sums(self, first, last, slowest_us):
        """Sums over the looks of a segment that were not interrupted; None when there is none."""
        number = sum_x = sum_t = sum_xx = sum_xt = sum_tt = 0
        for i in range(first, last):
            if self._took_us[i] <= slowest_us:
                x = self._existed[i]
                t = self._seen_us[i]
                number += 1
                sum_x += x
                sum_t += t
                sum_xx += x * x
                sum_xt += x * t
                sum_tt += t * t
        return (number, sum_x, sum_t, sum_xx, sum_xt, sum_tt) if number else None

    def _fit_interval(self, fits):
        # integers throughout: CircuitPython's floats have a mantissa of 22 bits
        s_xx = s_xt = s_tt = looks = 0
        freedom = -1
        for fit in fits:
            if fit is not None:
                number, sum_x, sum_t, sum_xx, sum_xt, sum_tt = fit
                s_xx += sum_xx - sum_x * sum_x // number
                s_xt += sum_xt - sum_x * sum_t // number
                s_tt += sum_tt - sum_t * sum_t // number
                freedom += number - 1
                looks += number
        if freedom < 2 or s_xx <= 0 or s_xt <= 0:
            self.interval_ns, self.interval_sigma_ns = 0, UNKNOWN_SIGMA
            return
        self.interval_ns = (s_xt * 1000 + s_xx // 2) // s_xx
        residual = max(0, s_tt - s_xt * s_xt // s_xx)  # us^2
        variance_ns = residual * 1000000 // (freedom * s_xx)
        crystal_ns = self.interval_ns * clock.CRYSTAL_PPM // 1000000
        self.interval_sigma_ns = _isqrt(variance_ns + crystal_ns * crystal_ns) + 1

    def _count_losses(self, fits):
        """Keep the gaps that are none for sure out of the list, and join the segments around them."""
        gaps = []
        segments = [self._segments[0]]
        before = fits[0]
        seen = len(fits) - 1  # the last segment that has looks
        while seen and fits[seen] is None:
            seen -= 1
        for i in range(1, len(fits)):
            after = fits[i]
            sure = False
            if before is None or not self.interval_ns or i > seen:
                lost = UNKNOWN_LOSS
            elif after is None:
                lost = IN_NEXT
            else:
                lost = self._lost(before, after)
                sure = before[0] >= SURE and after[0] >= SURE
            if lost or not sure:
                gaps.append((self.gaps[i - 1][0], lost))
                segments.append(self._segments[i])
            before = after if after is not None else before
        self.gaps = gaps
        self._segments = segments
        if gaps:
            self.flags |= GAP

    def _lost(self, before, after):
        step_ns = self._offset_ns(after) - self._offset_ns(before)
        return min(max(0, (step_ns + self.interval_ns // 2) // self.interval_ns), IN_NEXT - 1)

    def _offset_ns(self, fit):
        number, sum_x, sum_t = fit[:3]
        return (sum_t * 1000 - self.interval_ns * sum_x) // number


def _isqrt(value):
    """Integer square root, by Newton's method."""
    root = value
    better = (root + 1) // 2
    while better < root:
        root = better
        better = (root + value // root) // 2
    return root
