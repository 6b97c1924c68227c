"""How jobs, flows and lanes stand: why they wait, and when they will go."""
