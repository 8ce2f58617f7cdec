"""A video file becomes features, scores and a timeline."""
