"""A run, from its config to its artifact; and the plan of many runs."""
