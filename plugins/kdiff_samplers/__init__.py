"""The built-in samplers, one family a file. They are found through the entry point, as anyone's are."""
