"""What an adversary can do: threat models, attacks, and training objectives built on them."""
