"""Server DNNs: cards, adapters that run and differentiate a network, and heads that read its outputs."""
