"""The adapter for HashiCorp Nomad (1.10 and newer): the ports JobEngine and EngineWatch over its HTTP API.

The same code serves the real Nomad and the embedded agent. Services use `NomadCluster` and `ClusterSettings`; the
other modules are for tests and for readers.
"""

from shared.adapters.nomad.cluster import NomadCluster
from shared.adapters.nomad.settings import ClusterSettings

__all__ = ["ClusterSettings", "NomadCluster"]
