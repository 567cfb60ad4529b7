"""What both runtimes call micropython."""


def const(value):
    return value
