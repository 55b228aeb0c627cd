"""The router's data plane: HAProxy, and the agent beside it that tells it what to do. `docs/router.md` is its manual.

`table` is what the operator wants, `endpoints` where the pods are; `pools`, `split`, `config` and `plan` turn both into HAProxy's
words and are pure; `haproxy` speaks to HAProxy; `agent` brings the two together, level-triggered, and `server` tells the outcome.
Nothing here writes to Kubernetes, and nothing imports kopf or MLflow: an agent runs in every router pod.
"""
