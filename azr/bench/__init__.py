"""`azr bench`, part by part, and in executor/ `azr execute --bench`. figures.py is of both."""
