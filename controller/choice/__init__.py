"""Which Pod shall hold which addresses, and what to say of it: pure.

Read in this order: `objects` (what is read), `reading` (what one says by itself), `snapshot` (the world as one value,
with indexes), `validate`, `accept`, `elect`, `conditions`, `decide`, `expiry` (the clock is passed in).
"""
