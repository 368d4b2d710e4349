"""The command line: one run, grids of recipes, red teams and reports."""
