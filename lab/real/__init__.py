"""Real nodes for the lab: each a kubelet and a containerd in namespaces of its own, in place of a played kubelet."""
