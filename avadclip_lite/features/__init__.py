"""Feature files become a store: its writer, importers of released features, annotations."""
