"""Measurements. Every figure in the docs is printed by one of these, and anybody can run them again."""
