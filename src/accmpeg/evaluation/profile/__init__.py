"""Chooses the whole stream of a site by measurement: size, B-frames, look-ahead, map, preset, AQ."""
