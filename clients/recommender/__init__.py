"""Users of recommenders, as clients."""
