"""Moving whole stores: into files, out of files, from one store to another, for operators.

Knows the core's ports and records alone: stores and files are handed in, and nothing here talks to a terminal.
"""
