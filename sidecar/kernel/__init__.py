"""What stands in the kernel and goes over the wire: addresses, rules, frames."""
