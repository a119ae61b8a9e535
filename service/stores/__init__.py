"""Where client records live: one driver per file."""
