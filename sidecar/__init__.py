"""The agent in the Pod: makes the kernel and the network agree with its routes' Leases (docs/design.md).

`protocol` decides what this Pod may do; `kernel` places and announces addresses; `cluster` reads and writes Leases;
`route` joins the three for one route, `agent` for all of a Pod's, and `cli` starts it.
"""
