"""HTTP in and out, and nothing else: predict (bare ASGI, the hot path), describe (FastAPI), health (the second port)."""
