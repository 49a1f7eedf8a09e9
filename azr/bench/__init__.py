"""Measurements of parts of the system, started by the commands that name them."""
