"""Many runs: recipes, grids, red teams, and what they show."""
