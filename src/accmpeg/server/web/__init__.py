"""The server's doors: sockets, HTTP, tokens, and the dashboard."""
