"""Runs over notebooks and seeds, scores of anybody's detector, captured training steps."""
