"""Everything that depends on the version of Flower or on its transport."""
