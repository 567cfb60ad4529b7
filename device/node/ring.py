"""Frames that the server has not acknowledged yet, oldest first.

They wait in RAM. A frame in the ring was promised to arrive, so it is never dropped to make room: when the ring is
full, no more windows are captured until the server has taken some.
"""


class Ring:
    """At most `capacity_bytes` of frames, each under its (boot, sequence)."""

    def __init__(self, capacity_bytes):
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._frames = []  # (key, frame, refusals)

    def __len__(self):
        return len(self._frames)

    def has_room(self, length):
        return self.used_bytes + length <= self.capacity_bytes

    def put(self, key, frame):
        self._frames.append((key, frame, 0))
        self.used_bytes += len(frame)

    def oldest(self, limit_bytes):
        """Keys and frames to send together: as many of the oldest as fit `limit_bytes`, one at least."""
        batch = []
        total = 0
        for key, frame, _ in self._frames:
            if batch and total + len(frame) > limit_bytes:
                break
            batch.append((key, frame))
            total += len(frame)
        return batch

    def release(self, key):
        """Forget the frame of `key`; False when there is none."""
        for i, (held, frame, _) in enumerate(self._frames):
            if held == key:
                self.used_bytes -= len(frame)
                del self._frames[i]
                return True
        return False

    def refuse(self, key):
        """The server refused the frame: move it behind the others; returns how often that has happened."""
        for i, (held, frame, refusals) in enumerate(self._frames):
            if held == key:
                del self._frames[i]
                self._frames.append((key, frame, refusals + 1))
                return refusals + 1
        return 0
