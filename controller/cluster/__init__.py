"""What is said to and heard from the API server."""
