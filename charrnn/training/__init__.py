"""A run, its loop, and the threads that share its work."""
