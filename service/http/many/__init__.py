"""Bulk over HTTP: items into columns (`items`), columns into JSON (`text`), lines in and out (`replay`)."""
