"""The runtime of Moorage: fetches one MLflow model version and serves it."""
