"""The loops over every sample and byte: in machine code where the runtime compiles it, plain Python elsewhere."""

try:
    from node.loops_viper import *  # noqa: F403
except (SyntaxError, NameError, ImportError):  # no viper: the wasm build, CPython, a board without native code
    from node.loops_plain import *  # noqa: F403
