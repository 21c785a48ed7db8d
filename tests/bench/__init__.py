"""The benchmarks: `python -m tests.bench`. See README.md."""
