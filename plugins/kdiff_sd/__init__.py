"""Adapters of trained models, and of the hosts that call samplers: diffusers, k-diffusion."""
