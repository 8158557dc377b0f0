"""Training: the splits of a text, a run, its loop, and data parallelism."""
