"""How good an adapter is beside its base, and whether it may be published."""
