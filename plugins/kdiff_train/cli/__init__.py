"""The commands `kdiff train` and `kdiff eval`."""
