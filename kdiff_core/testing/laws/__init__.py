"""The checks, one family of laws a file; each a plain function that anyone may call by hand."""
