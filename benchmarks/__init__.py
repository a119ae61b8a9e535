"""What the service costs, beside an empty Flask endpoint on the same machine in the same run: `make bench`."""
