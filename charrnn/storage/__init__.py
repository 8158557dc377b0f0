"""Checkpoints: their header, how they are written and read, and their lock."""
