"""Renders the footage and trains the networks of the embedded demo; not installed with the package."""
