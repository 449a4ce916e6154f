"""The benchmarks: `python -m bench`. Subjects and baselines are measured in the same run; what came out is in
docs/explanation/performance.md."""
