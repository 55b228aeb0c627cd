"""A disposable Kubernetes cluster for development: an existing one, kind's, or a node in a namespace of this machine.

The flow: `cli` parses, `providers` decides whose cluster it is, and `existing`, `kind` or `node` does the work. For the node:
`tools` builds the programs, `pki` and `files` write what they read, `supervisor` runs them as pid 1 of the namespaces,
`network` joins them to the host, `addons` makes it a cluster that resolves names and measures pods. Nothing but the standard library.
"""
