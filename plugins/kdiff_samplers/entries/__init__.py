"""The names of the samplers, a table for each group of families."""
