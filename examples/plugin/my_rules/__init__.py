"""A rule, two attacks and a model for byzflower."""
