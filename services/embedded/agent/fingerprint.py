"""The node row a client presents: what the machine is, as far as settings do not say it. Called at start."""

import os
import platform
import socket
from datetime import UTC, datetime

from .jobspec import Row
from .settings import AgentSettings

_REGISTERED: Row = {"CreateIndex": 0, "Details": None, "Message": "Node registered", "Subsystem": "Cluster"}
_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def node_row(settings: AgentSettings, node_id: str, name: str, address: str) -> Row:
    """A node in Nomad's form; Status and indexes are the server's."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    meta = {**settings.node_meta, **({"country": settings.country} if settings.country else {})}
    return {
        "Attributes": _attributes(settings, address), "CSIControllerPlugins": {}, "CSINodePlugins": {},
        "CgroupParent": "nomad.slice", "ComputedClass": f"v1:{abs(hash((settings.datacenter, settings.node_pool)))}",
        "CreateIndex": 0, "Datacenter": settings.datacenter, "Drain": False, "DrainStrategy": None,
        "Drivers": _drivers(settings.drivers, now),
        "Events": [_REGISTERED | {"Timestamp": now}],
        "GCVolumesOnNodeGC": False, "HTTPAddr": address, "HostNetworks": None, "HostVolumes": {}, "ID": node_id,
        "IdentitySigningKeyID": "", "LastAllocUpdateIndex": 0, "LastDrain": None, "LastMissedHeartbeatIndex": 0,
        "Links": {},
        "Meta": meta, "ModifyIndex": 0, "Name": name, "NodeClass": "", "NodeMaxAllocs": 0,
        "NodePool": settings.node_pool,
        "NodeResources": _resources(settings),
        "ReservedResources": {
            "Cpu": {"CpuShares": 0, "ReservedCpuCores": None}, "Disk": {"DiskMB": 0}, "Memory": {"MemoryMB": 0},
            "Networks": {"ReservedHostPorts": ""},
        },
        "SchedulingEligibility": "eligible", "SecretID": "", "Status": "initializing", "StatusDescription": "",
        "StatusUpdatedAt": 0, "TLSEnabled": False,
    }  # fmt: skip


def _attributes(settings: AgentSettings, address: str) -> dict[str, str]:
    host = address.rpartition(":")[0]
    found = {
        "cpu.arch": _ARCH.get(platform.machine(), platform.machine()),
        "cpu.numcores": str(os.cpu_count() or 1),
        "cpu.totalcompute": str(settings.cpu_mhz),
        "cpu.usablecompute": str(settings.cpu_mhz),
        "kernel.arch": platform.machine(),
        "kernel.name": platform.system().lower(),
        "kernel.version": platform.release(),
        "memory.totalbytes": str(settings.memory_mb * 1024 * 1024),
        "nomad.version": settings.version,
        "os.name": _os_release().get("ID", "linux"),
        "os.version": _os_release().get("VERSION_ID", ""),
        "unique.hostname": socket.gethostname(),
        "unique.network.ip-address": host,
        "unique.storage.bytestotal": str(settings.disk_mb * 1024 * 1024),
        "serai.embedded": "true",
    }
    return {**found, **{f"driver.{name}": "1" for name in settings.drivers}, **settings.node_attributes}


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _drivers(names: tuple[str, ...], now: str) -> Row:
    """The configured ones healthy, docker and java absent."""
    absent = {"docker": "Failed to connect to docker daemon", "java": "", "qemu": ""}
    rows: Row = {
        name: {"Attributes": {}, "Detected": False, "HealthDescription": why, "Healthy": False, "UpdateTime": now}
        for name, why in absent.items()
    }
    for name in names:
        attributes = {f"driver.{name}": "true"}
        rows[name] = {
            "Attributes": attributes,
            "Detected": True,
            "HealthDescription": "Healthy",
            "Healthy": True,
            "UpdateTime": now,
        }
    return rows


def _resources(settings: AgentSettings) -> Row:
    cores, host = os.cpu_count() or 1, settings.host
    return {
        "Cpu": {"CpuShares": settings.cpu_mhz, "ReservableCpuCores": list(range(cores)), "TotalCpuCores": cores},
        "Devices": _devices(settings) or None,
        "Disk": {"DiskMB": settings.disk_mb},
        "MaxDynamicPort": settings.max_dynamic_port,
        "Memory": {"MemoryMB": settings.memory_mb},
        "MinDynamicPort": settings.min_dynamic_port,
        "Networks": [{"CIDR": f"{host}/32", "Device": "lo", "IP": host, "MBits": 1000, "Mode": "host"}],
        "NodeNetworks": [
            {
                "Addresses": [_ADDRESS | {"Address": host}],
                "Device": "lo",
                "MacAddress": "",
                "Mode": "host",
                "Speed": 1000,
            }
        ],
        "Processors": {"Topology": {**_TOPOLOGY, "OverrideTotalCompute": settings.cpu_mhz}},
    }


_ADDRESS: Row = {"Alias": "default", "Family": "ipv4", "Gateway": "", "ReservedPorts": ""}
_TOPOLOGY: Row = {"Cores": None, "Distances": None, "Nodes": [0], "OverrideWitholdCompute": 0}


def _devices(settings: AgentSettings) -> list[Row]:
    rows = []
    for vendor, kind, name, count in settings.gpus:
        healthy = {"Healthy": True, "HealthDescription": "", "Locality": None}
        instances = [healthy | {"ID": f"{name}-{i}"} for i in range(count)]
        rows.append({"Attributes": {}, "Instances": instances, "Name": name, "Type": kind, "Vendor": vendor})
    return rows
