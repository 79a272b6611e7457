"""Auth: who is calling, what they may do, and the only signatures of the platform. Knows nothing about jobs."""
