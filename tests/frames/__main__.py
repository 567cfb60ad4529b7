"""Print golden.json with the cases it lacks added; those it has stay as they are."""

import json

from tests.frames import CASES, FILE, frame_of, golden

cases = golden() if FILE.exists() else {}
for name, case in CASES.items():
    cases.setdefault(name, {**case, "frame": frame_of(case).hex()})
print(
    "{\n"
    + ",\n".join(f"{json.dumps(name)}: {json.dumps(case, ensure_ascii=False)}" for name, case in cases.items())
    + "\n}"
)
