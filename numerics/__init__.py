"""Numbers and tensors, without Flower and without a federation."""
