"""The benchmark of issue 2's numbers: `python -m tests.bench`. See README.md."""
