"""From K models of one kind to one program: traced, rewritten rule by rule, checked against the models."""
