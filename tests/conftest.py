"""Fixtures that several folders of tests share."""

pytest_plugins = ["fixtures_cluster", "fixtures_mlflow"]
