"""Experiments: questions to the system as a whole, answered by many runs of `azr train` with seeds and intervals."""
