"""Renders findings as HTML, Markdown, pictures and tables; computes nothing."""
