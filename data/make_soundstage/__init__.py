"""The world that made Soundstage: scripts, imported by nothing in the package."""
