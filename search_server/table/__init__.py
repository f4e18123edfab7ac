"""A table of trained losses: what is in it, how it is trained, read and replayed."""
