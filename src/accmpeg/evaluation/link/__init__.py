"""An emulated network and server: when each result of a stream is there."""
