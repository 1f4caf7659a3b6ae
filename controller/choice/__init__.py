"""Which Pod shall hold which addresses, and what to say of it: pure.

Read in this order: `objects` (what is read), `snapshot` (the world as one value, with indexes), `accept`, `elect`,
`conditions`, `decide`, `expiry` (the clock is passed in).
"""
