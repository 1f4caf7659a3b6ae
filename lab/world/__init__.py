"""A real control plane, nodes and Pods in network namespaces, and what they are made of."""
