"""The agent in the Pod: makes the kernel and the network agree with its routes' Leases (docs/design.md)."""
