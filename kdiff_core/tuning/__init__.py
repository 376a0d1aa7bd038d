"""Tuning for few steps: grids, weights and numbers of steps, for any denoiser and any sampler with a plan.

It is part of the core, not a plugin, because names that end in ``.json`` are files of it, and the look-up of
names, which reads them, imports no plugin. `tuned` needs no torch; the rest loads it when it is used.
"""
