"""The authors' checkpoints and the paper's tables."""
