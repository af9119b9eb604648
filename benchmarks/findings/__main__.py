"""``python -m benchmarks.findings``."""

from benchmarks.findings.suite import main

if __name__ == "__main__":
    main()
