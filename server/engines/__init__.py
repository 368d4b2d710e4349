"""Where a run's clients live: in this process, or on Flower's Ray engine."""
