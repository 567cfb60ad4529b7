"""Only CPython evaluates the libraries' annotations; this is what they ask for."""

ReadableBuffer = WriteableBuffer = object
