"""Trustworthy vibration windows: frames to numpy arrays. Needs numpy only; the rest of judder is `judder[app]`."""

from judder.frame import decode, decode_article, decode_each, decode_frames
from judder.report import Loss, Report
from judder.window import Flags, FrameError, Window

__version__ = "0.1.0"
__all__ = [
    "Flags",
    "FrameError",
    "Loss",
    "Report",
    "Window",
    "__version__",
    "decode",
    "decode_article",
    "decode_each",
    "decode_frames",
]
