"""The hostile trial."""
