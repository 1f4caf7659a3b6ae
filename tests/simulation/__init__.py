"""The protocol under random faults: the real `decide`, `Expiry` and machine in one deterministic event loop.

Everything else is simulated and stands here: `loop` (time, processes, clocks), `server` (API server and the lines to
it), `kernel` (addresses, fences, and who has what), `sidecar` and `controller` (the hosts of what is real), `schedule`
(what goes wrong when, from a seed), `faults` (how), `world` (all of it, with the checks). `replay`, `soak` and
`mutants` are commands.

Not here: the bytes on the wire, netlink, HTTP; those are tried for real in tests/lab.
"""
