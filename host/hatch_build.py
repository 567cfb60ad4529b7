"""Build hook: put the board's tree (device/, boot.py, pinned libraries with their licences) into the wheel.

The libraries are fetched by pip at build time from device/requirements.txt and never committed. An editable install
needs none of this: there the package finds the checkout's own device/.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_OTHER_FILES = ("settings.example.toml", "requirements.txt")


class BoardTree(BuildHookInterface[Any]):
    """Adds judder/_board to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        device = Path(self.root) / "device"
        self._libraries = tempfile.TemporaryDirectory()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        target = ["--target", self._libraries.name, "--requirement", str(device / "requirements.txt")]
        subprocess.run([*pip, "--disable-pip-version-check", *target], check=True)  # noqa: S603
        included = build_data["force_include"]
        included[str(Path(self.root) / "boot.py")] = "judder/_board/boot.py"
        included[self._libraries.name] = "judder/_board/device/lib"
        for path in sorted(device.rglob("*")):
            relative = path.relative_to(device)
            if relative.parts[0] != "lib" and (path.suffix == ".py" or path.name in _OTHER_FILES):
                included[str(path)] = f"judder/_board/device/{relative}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._libraries.cleanup()
