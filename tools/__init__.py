"""What only a clone can do: run its notebooks, report on them, execute the pairs, teach, check."""
