"""Data sets: samples by number, with values in [-1, 1] and classes as ``label``."""
