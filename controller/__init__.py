"""The cluster controller: chooses the Pod that shall hold a route, and says so (docs/design.md)."""
