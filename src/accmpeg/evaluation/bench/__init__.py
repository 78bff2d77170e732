"""Runs the methods on clips, scores what the server DNN answers, and keeps the rows."""
