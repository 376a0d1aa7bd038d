"""The plugins here are distributions with tests of their own, run where they are installed."""

collect_ignore = ["tenliner", "broken", "taken", "misspelt", "parts"]
