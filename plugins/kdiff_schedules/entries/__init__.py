"""Tables of what this package offers."""
