"""A model that doubles its input, for tests that need one worse in just one way: MOOD says which. MLflow runs this file as it is."""

import ctypes
import random
import time

import mlflow

MOOD = "equal"


class Moody(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow tells no types
    """In some of the requests only, so that no single one says it all."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        doubled = model_input[["x"]].rename(columns={"x": "y"}) * 2.0
        if len(model_input) == 1 and float(model_input["x"].iloc[0]) == WARM_UP:
            return doubled
        if MOOD == "slow":
            time.sleep(0.3)
        if MOOD == "failing" and random.random() < 0.3:
            raise RuntimeError("in a bad mood")
        if MOOD == "failing by gRPC" and float(model_input["x"].iloc[0]) < 0 and random.random() < 0.3:
            raise RuntimeError(
                "in a bad mood"
            )  # nobody tells it the protocol, but only by gRPC it is asked about less than 0
        if MOOD == "crashing" and random.random() < 0.1:
            ctypes.string_at(0)  # a real fault: process 1 of a container would not notice a signal from itself
        if MOOD == "greedy" and random.random() < 0.05:
            taken = []
            while True:
                taken.append(b"x" * 2**24)  # until the kernel ends the container
        if MOOD == "wrong" and random.random() < 0.5:
            return doubled + 1.0
        if MOOD == "seldom wrong" and random.random() < 0.2:
            return doubled + 1.0
        return doubled


WARM_UP = 12345.0
"""The input example: the pod gets ready in any mood."""

mlflow.models.set_model(Moody())
