"""Train a scikit-learn classifier on the iris flowers and register it in MLflow as `iris`, alias `champion`.

MLFLOW_TRACKING_URI says where MLflow is. The data comes with scikit-learn. To see a rollout: `--trees 100` makes another good
version, `--slow 0.5` one that takes so many seconds longer for half of its answers.
"""

import argparse
import random
import time

import mlflow
import pandas
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

NAME = "iris"


class SlowForest(RandomForestClassifier):
    """A worse version: as right as the others, and half of its answers come late."""

    def __init__(self, seconds: float = 0.0, n_estimators: int = 50, random_state: int | None = None) -> None:
        super().__init__(n_estimators=n_estimators, random_state=random_state)
        self.seconds = seconds

    def predict(self, X: pandas.DataFrame) -> object:  # noqa: N803 - scikit-learn's name
        if random.random() < 0.5:  # noqa: S311 - no secret
            time.sleep(self.seconds)
        return super().predict(X)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=50)
    parser.add_argument("--slow", type=float, default=0.0, metavar="SECONDS")
    options = parser.parse_args()
    measurements, species = load_iris(return_X_y=True, as_frame=True)
    measurements.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    train_x, test_x, train_y, test_y = train_test_split(measurements, species, random_state=7)
    mlflow.set_experiment(NAME)
    with mlflow.start_run():
        forest = SlowForest(options.slow) if options.slow else RandomForestClassifier()
        model = forest.set_params(n_estimators=options.trees, random_state=7).fit(train_x, train_y)
        accuracy = model.score(test_x, test_y)
        mlflow.log_metric("accuracy", accuracy)
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            # scikit-learn's usual form, code included: the ModelDeployment has to say allowPickle. digits-onnx does without.
            serialization_format="cloudpickle",
            pip_requirements=["scikit-learn", "pandas"],
            signature=mlflow.models.infer_signature(test_x, model.predict(test_x)),
            input_example=test_x.head(2),
            registered_model_name=NAME,
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", version)
    print(f"{NAME}: version {version} is now the champion, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
