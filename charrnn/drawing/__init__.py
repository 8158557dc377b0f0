"""Plots and pages, with the files that the pages are made of."""
