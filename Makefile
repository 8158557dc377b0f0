# The everyday commands; CONTRIBUTING.md explains them.

.PHONY: test lint bench

test:
	pytest

lint:
	ruff check .
	ruff format --check .
	mypy

# TORCH is a Python with PyTorch; bench/README.md describes how to install it.
TORCH ?= torch/bin/python
bench:
	python bench/compare.py --torch $(TORCH)
	python bench/scaling.py
	python bench/overhead.py
