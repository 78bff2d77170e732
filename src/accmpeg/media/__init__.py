"""Pixels and bitstreams: sources, encoders that take quality maps, decoders that read QPs back, sinks."""
