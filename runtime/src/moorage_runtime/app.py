"""Puts the routes together: the prediction routes in front, FastAPI's describing routes behind them."""

from __future__ import annotations

from moorage_runtime import service
from moorage_runtime.routes import describe, predict


def app(served: service.ModelService) -> predict.App:
    """The ASGI app of the prediction port."""
    return predict.Predictions(served, otherwise=describe.app(served))
