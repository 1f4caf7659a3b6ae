"""Gives a Pod its agent: what is added, and to whom. `pod` and `policy` decide and are pure."""
