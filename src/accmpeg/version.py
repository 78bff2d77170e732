"""The version, where the build can read it without importing the package."""

__all__ = ["__version__"]

__version__ = "0.2.0.dev1"
