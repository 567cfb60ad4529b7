"""One target under libFuzzer, in a process of its own: `python -m tests.fuzz.engine TARGET`, then its options."""

import importlib
import sys

import atheris

name = sys.argv.pop(1)
sys.argv[0] = f"{sys.executable} -m tests.fuzz.engine {name}"  # -merge has a shell start it again by this
with atheris.instrument_imports(include=["judder", "node"]):
    target = importlib.import_module(f"tests.fuzz.{name}")
atheris.Setup(sys.argv, target.run)
atheris.Fuzz()
