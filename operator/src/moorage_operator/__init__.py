"""The operator of Moorage: observe, decide, apply."""
