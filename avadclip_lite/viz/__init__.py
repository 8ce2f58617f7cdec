"""Figures, and what lessons share."""
