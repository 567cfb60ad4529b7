"""Models: from Edge Impulse or from training here, to one file of data that boards run (docs/model-format.md)."""
