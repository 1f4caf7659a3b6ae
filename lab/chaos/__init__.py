"""Makes faults, one by one and all at once, and judges what the kernels and the wire then say."""
