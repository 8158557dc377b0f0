"""Texts: files, symbols, vocabulary, batches."""
