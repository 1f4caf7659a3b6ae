"""The command for people: `holdfast demo`, `holdfast lab`."""
