"""Numbers and tensors: what knows neither Flower nor a federation."""
