"""A run's complete configuration, checked before anything starts."""
