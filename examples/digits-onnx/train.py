"""Train a classifier on scikit-learn's handwritten digits and register it in MLflow as ONNX: `digits-onnx`, alias `champion`.

MLFLOW_TRACKING_URI says where MLflow is. An ONNX file holds a graph and numbers, no code: whoever serves it need not trust
whoever made it.
"""

import mlflow
import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAME = "digits-onnx"


def main() -> None:
    pixels, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(pixels.astype(np.float32), digits, random_state=7)
    mlflow.set_experiment(NAME)
    with mlflow.start_run():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(train_x, train_y)
        accuracy = model.score(test_x, test_y)
        mlflow.log_metric("accuracy", accuracy)
        # zipmap=False: probabilities as one array, not as a list of dictionaries.
        graph = to_onnx(model, train_x[:1], options={"zipmap": False})
        answer = {"label": digits[:2], "probabilities": model.predict_proba(test_x[:2]).astype(np.float32)}
        logged = mlflow.onnx.log_model(
            graph,
            name="model",
            pip_requirements=["onnxruntime"],
            signature=mlflow.models.infer_signature(test_x[:2], answer),
            input_example=test_x[:2],
            registered_model_name=NAME,
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", version)
    print(f"{NAME}: version {version} is now the champion, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
