"""Puts the routes together: the prediction routes in front, then feedback, FastAPI's describing routes behind them."""

from __future__ import annotations

from moorage_runtime import service, shadow
from moorage_runtime.routes import describe, feedback, predict


def app(served: service.ModelService, *, port: int, shadows: shadow.Shadows | None = None) -> predict.App:
    """The ASGI app of the prediction port, which the deployment's other pods have, too."""
    otherwise = feedback.Feedback(served, describe.app(served), port=port)
    return predict.Predictions(served, otherwise, shadows)
