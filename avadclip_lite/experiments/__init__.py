"""Runs over notebooks and seeds, and scores of anybody's detector."""
