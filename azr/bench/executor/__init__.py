"""`azr execute --bench`: the executor by itself."""
