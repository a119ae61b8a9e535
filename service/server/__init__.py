"""The servers as we run them: gunicorn with an event loop and connections of our own, and granian."""
