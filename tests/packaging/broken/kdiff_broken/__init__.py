"""A plugin that needs something which is not there."""

raise RuntimeError("this plugin needs a driver that is not installed")
