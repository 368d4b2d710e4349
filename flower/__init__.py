"""Flower's versions, transports and messages: nothing else asks which Flower runs."""
