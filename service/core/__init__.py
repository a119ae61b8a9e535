"""What the service knows, in standard library and numpy alone; it imports nothing of ours but itself."""
