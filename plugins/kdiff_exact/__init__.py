"""Exact denoisers of real data: no training, and every answer known in closed form."""
