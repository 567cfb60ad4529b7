"""The manifest of a drive: what should be on it, so that half of an image is not taken for all of it."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from judder.board import Tree

MANIFEST = "manifest.json"


class ManifestError(ValueError):
    """A file that is no manifest."""


def manifest(files: Mapping[str, bytes], version: str, revision: str, model_id: str) -> bytes:
    """What should be on the drive: JSON with size and CRC-32 of each of `files`.

    The settings and what the firmware writes to are left out: they may change.
    """
    listed = {path: [len(content), crc32(content)] for path, content in files.items()}
    members = {"version": version, "revision": revision, "model": model_id, "files": listed}
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def read_manifest(data: bytes) -> dict[str, Any]:
    """Its members, "files" as path and (size, CRC-32). Raises ManifestError."""
    try:
        members = dict(json.loads(data))
        files = {str(path): (int(size), int(crc)) for path, (size, crc) in members["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ManifestError(f"{MANIFEST} is no manifest") from None
    return {**members, "files": files}


def differences(files: Mapping[str, bytes], listed: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """Between what is on a drive and what should be, in a line each."""
    for path, expected in sorted(listed.items()):
        if path not in files:
            yield f"{path} is in the manifest and not on the drive"
        elif (found := (len(files[path]), crc32(files[path]))) != expected:
            both = "{} bytes with CRC {:08x}, and by the manifest {} with {:08x}".format(*found, *expected)
            yield f"{path} has {both}"


def revision(source: Tree) -> str:
    """The commit of the checkout that the tree is, "-dirty" if it differs from it; "" if it is none."""
    root = source.boot.parent
    if not (root / ".git").exists() or source.device != root / "device":
        return ""
    commit = _git(root, "rev-parse", "HEAD")
    if not commit or _git(root, "ls-files", "device/main.py") != "device/main.py":
        return ""
    return commit[:12] + ("-dirty" if _git(root, "status", "--porcelain", "--", "device", "boot.py") else "")


def _git(root: Path, *arguments: str) -> str:
    """What git prints; "" without git, or if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's, say
    command = ["git", "-C", str(root), *arguments]
    try:
        run = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()
