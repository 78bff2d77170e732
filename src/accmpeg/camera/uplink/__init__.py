"""The camera's way to its server: what is kept, what is sent, how fast, and what comes back."""
