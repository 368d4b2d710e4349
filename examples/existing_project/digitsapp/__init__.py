"""A small Flower app, on the Message API and on NumPyClient + ServerAppComponents."""
