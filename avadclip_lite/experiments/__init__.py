"""Trainings over seeds, numbers with names, scores of anybody's detector, captured steps."""
