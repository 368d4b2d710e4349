"""Attacks that need more than one client's view, around any Flower strategy."""
