"""The command lines: the only place that prints."""
