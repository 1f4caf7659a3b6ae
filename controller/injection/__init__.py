"""Who gets the agent, and the webhook that gives it: what is added to a Pod, certificates, and the server."""
