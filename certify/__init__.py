"""What no adversary can do: bounds and certificates."""
