"""Simulation: the production intake in virtual time, with actors and trainers that cost time and do no work."""
