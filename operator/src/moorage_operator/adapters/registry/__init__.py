"""All I/O with MLflow. What a registry answers is hostile input: it is checked here, before anything else sees it."""

from moorage_operator.adapters.registry.declaration import RegistryDeclaration
from moorage_operator.adapters.registry.registry import MlflowRegistry

__all__ = ["MlflowRegistry", "RegistryDeclaration"]
