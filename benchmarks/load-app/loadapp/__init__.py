"""The app whose server benchmarks/load.py measures."""
