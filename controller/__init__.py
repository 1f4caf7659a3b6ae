"""The controller: chooses the Pod of each route, says so on the Pod and on the Lease, and reports what came of it.

`choice` decides and does nothing else (snapshot in, desired writes out); `cluster` reads from and writes to the API
server; `loop` joins them in one thread, with `outgoing` for how a decision is written, and `cli` starts them.
"""
