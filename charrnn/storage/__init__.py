"""What a checkpoint holds; how it is written, read and locked."""
