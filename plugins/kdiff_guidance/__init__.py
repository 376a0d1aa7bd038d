"""Guidance: denoisers made of a denoiser's answers to different conditions."""
