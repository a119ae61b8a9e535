"""gunicorn as we run it: how it starts, its worker's event loop, connections, the call of the WSGI application."""
