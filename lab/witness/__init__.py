"""What the kernels and the wire say, recorded and judged; nothing here asks our own programs."""
