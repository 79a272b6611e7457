"""Promises of SiteRegistry that an adapter cannot keep, by name; all others are tested on both."""

NOT_KEPT = {
    "memory": {
        "unreachable is told from critical": "a probe that fails does not say whether the site or the way to it is "
        "broken; where health is probed by us, the monitor's `site.unreachable` says it.",
        "ready names the culprit": "sites and probes are in the process: there is nobody outside who could be away.",
    },
    "consul": {},
}
