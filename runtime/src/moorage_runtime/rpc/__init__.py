"""gRPC: the Open Inference Protocol and the standard health service, on a port of their own, over the same core as REST.

server      the port's life and its bounds      inference   the protocol's six calls      health   grpc.health.v1
"""
