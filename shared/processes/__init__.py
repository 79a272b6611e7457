"""Running one service as a process of its own, on real parts. The embedded platform needs nothing of this."""
