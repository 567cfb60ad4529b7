"""Print golden.json (or, with `reports`, golden_reports.json) with the cases it lacks added; the others stay."""

import json
import sys

from tests.frames import CASES, FILE, REPORT_CASES, REPORTS_FILE, frame_of, report_of

if sys.argv[1:] == ["reports"]:
    file, wanted, encoded = REPORTS_FILE, REPORT_CASES, report_of
else:
    file, wanted, encoded = FILE, CASES, frame_of
cases = json.loads(file.read_text()) if file.exists() else {}
for name, case in wanted.items():
    cases.setdefault(name, {**case, "frame": encoded(case).hex()})
print(
    "{\n"
    + ",\n".join(f"{json.dumps(name)}: {json.dumps(case, ensure_ascii=False)}" for name, case in cases.items())
    + "\n}"
)
