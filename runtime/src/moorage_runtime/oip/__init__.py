"""The Open Inference Protocol's messages over gRPC: `inference.proto`, and the modules that `make generate` makes of it."""
