"""Train a small network on scikit-learn's handwritten digits and register it in MLflow as a PyTorch exported program:
`digits-torch`, alias `champion`.

MLFLOW_TRACKING_URI says where MLflow is. An exported program (torch.export, `.pt2`) is a graph and numbers: it needs neither the
class of the network nor pickle to be served.
"""

import mlflow
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

NAME = "digits-torch"


def network() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 6 * 6, 10),
        nn.Softmax(dim=1),
    )


def train(model: nn.Module, pixels: torch.Tensor, digits: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.nll_loss(torch.log(model(pixels) + 1e-9), digits).backward()
        optimizer.step()


def main() -> None:
    torch.manual_seed(7)
    pixels, digits = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(pixels, digits, random_state=7)
    mlflow.set_experiment(NAME)
    with mlflow.start_run():
        model = network()
        train(model, torch.from_numpy(train_x), torch.from_numpy(train_y))
        model.eval()
        with torch.no_grad():
            probabilities = model(torch.from_numpy(test_x)).numpy()
        accuracy = float((probabilities.argmax(axis=1) == test_y).mean())
        mlflow.log_metric("accuracy", accuracy)
        logged = mlflow.pytorch.log_model(
            model,
            name="model",
            pip_requirements=["torch"],
            serialization_format="pt2",
            # Two rows: torch.export takes a first dimension of 1 for a constant, and batches would not fit.
            signature=mlflow.models.infer_signature(test_x[:2], probabilities[:2]),
            input_example=test_x[:2],
            registered_model_name=NAME,
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", version)
    print(f"{NAME}: version {version} is now the champion, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
