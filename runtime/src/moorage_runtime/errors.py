"""The runtime's own errors. The core raises them; `routes` turn requests' into HTTP, `__main__` turns ends into exit code 1.

RuntimeFault                      root; the message is safe to show: no payload, no credential, no library text
├── Fatal                         ends the process; `reason` goes to the termination message, from there into a condition
│   ├── FetchError
│   │   ├── RegistryUnreachable   nobody answers at MLFLOW_TRACKING_URI
│   │   ├── RegistryUnauthorized  it answers, and refuses the credentials
│   │   ├── ModelVersionNotFound
│   │   ├── ArtifactMissing       the version exists, its files do not
│   │   ├── ArtifactUnauthorized  the artifact store refuses the credentials
│   │   ├── SourceRefused         the files lie where no registry may send a pod, or are not plain files
│   │   ├── DigestMismatch        not the files that this revision was made of
│   │   ├── DiskFull
│   │   └── FetchFailed           anything else
│   ├── LoadError
│   │   ├── UnsupportedFlavor
│   │   ├── EngineUnavailable     a library is not in this image
│   │   ├── PickleNotAllowed      loading would run code that came with the model
│   │   ├── SignatureMissing
│   │   ├── DeviceUnavailable
│   │   ├── ModelLoadFailed
│   │   ├── WarmupFailed
│   │   └── OutOfMemory
│   └── UsageError                a flag or a variable is wrong
└── RequestError                  answers one request; `status` is its HTTP code
    ├── BadRequest                400: the body can't be read at all
    ├── NotFound                  404
    ├── Gone                      410: only one pod could have answered, and it does not remember or is not there
    ├── BodyTooLarge              413
    ├── UnsupportedMediaType      415
    ├── InvalidInput              422: readable, but not what the signature asks for
    ├── ModelFault                500: the model failed on input that its signature allows
    ├── NotReady                  503, with Retry-After
    ├── Overloaded                503, with Retry-After: as many requests as the pod may hold are waiting
    └── DeadlineExceeded          504: no prediction in the time that the request had
"""

from __future__ import annotations


class RuntimeFault(Exception):
    """Root of all that this package raises on purpose."""


class Fatal(RuntimeFault):
    """The process can't go on; the class's name is the reason."""

    @property
    def reason(self) -> str:
        return type(self).__name__


class FetchError(Fatal):
    pass


class RegistryUnreachable(FetchError):
    pass


class RegistryUnauthorized(FetchError):
    pass


class ModelVersionNotFound(FetchError):
    pass


class ArtifactMissing(FetchError):
    pass


class ArtifactUnauthorized(FetchError):
    pass


class SourceRefused(FetchError):
    pass


class DigestMismatch(FetchError):
    pass


class DiskFull(FetchError):
    pass


class FetchFailed(FetchError):
    pass


class LoadError(Fatal):
    pass


class UnsupportedFlavor(LoadError):
    pass


class EngineUnavailable(LoadError):
    pass


class PickleNotAllowed(LoadError):
    pass


class SignatureMissing(LoadError):
    pass


class DeviceUnavailable(LoadError):
    pass


class ModelLoadFailed(LoadError):
    pass


class WarmupFailed(LoadError):
    pass


class OutOfMemory(LoadError):
    pass


class UsageError(Fatal):
    pass


class RequestError(RuntimeFault):
    """One request can't be answered with a prediction."""

    status = 500


class BadRequest(RequestError):
    status = 400


class NotFound(RequestError):
    status = 404


class Gone(RequestError):
    status = 410


class BodyTooLarge(RequestError):
    status = 413


class UnsupportedMediaType(RequestError):
    status = 415


class InvalidInput(RequestError):
    status = 422


class ModelFault(RequestError):
    status = 500


class NotReady(RequestError):
    status = 503


class Overloaded(RequestError):
    status = 503


class DeadlineExceeded(RequestError):
    status = 504
