"""How many percent of a target's lines its committed inputs reach: `python -m tests.fuzz.lines TARGET`."""

import importlib
import sys

import coverage
from tests.fuzz import FOLDER, TARGETS, kept

name = sys.argv[1]
root = FOLDER.parent.parent
measured = coverage.Coverage(data_file=None, config_file=False, include=[str(root / file) for file in TARGETS[name]])
with measured.collect():  # importing counts: it is what runs the lines with `def`
    target = importlib.import_module(f"tests.fuzz.{name}")
    for path in kept(name):
        target.run(path.read_bytes())
print(f"{measured.report(file=sys.stderr, show_missing=True):.1f}")
