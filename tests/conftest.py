"""Shared by every test: what is slow to make is made once."""
