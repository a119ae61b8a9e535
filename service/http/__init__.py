"""The HTTP face of the core: parses, calls, renders."""
