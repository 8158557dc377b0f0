"""What a network learns from its text, one file each. A new task is a line in ``config.TASKS``."""
