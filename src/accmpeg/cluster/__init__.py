"""The same work on a Ray cluster: who may connect, which nodes can work, and where the work then runs."""
