"""Candidates and Monte Carlo labels: what a policy is asked for and what is kept of it."""
