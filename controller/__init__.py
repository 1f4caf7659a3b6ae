"""The controller: chooses the Pod of each route, says so on the Pod and on the Lease, and reports what came of it.

Read in this order: `objects` (what is read), `snapshot` (the world as one value, with indexes), `accept`, `elect`,
`conditions`, `decide` (pure: snapshot in, desired writes out), `expiry` (pure: the clock is passed in); then the
glue: `kube`, `reflector`, `writer`, `reconcile`, `election`, `cli`.
"""
