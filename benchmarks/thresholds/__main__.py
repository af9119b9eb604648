"""``python -m benchmarks.thresholds``."""

from benchmarks.thresholds.tournament import main

if __name__ == "__main__":
    main()
