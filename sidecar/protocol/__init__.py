"""What this Pod may do, decided from what it knows: pure."""
