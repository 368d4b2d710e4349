"""Many runs: recipes, grids, red teams, claims and reports."""
