"""Promises of JobEngine and EngineWatch that an adapter or an agent cannot keep, by name; all others are tested."""

NOT_KEPT = {
    "closed for good": "Nomad collects a dead tombstone as garbage after job_gc_threshold (4 h by default); a register "
    "that comes later still wins. The platform never registers again after 1 h and stops strays at sight.",
    "exactly one winner": "EnforceIndex is atomic from Nomad 1.10.11, 1.11.5 and 2.0.1; two registers may both win in "
    "older ones. What lies there then is read, and the job's version tells which came first.",
    "deletions are seen": "Nomad tells deletions of jobs from 1.11.3 on, and those of allocations never: re-list.",
    "exact offsets from the end": "Nomad tells a place within one log file. After a rotation (5 files of at most "
    "20 MiB each) offsets of a `from_end` read count from the beginning of the oldest file read, and `offset` of a "
    "read from the start counts in what is left.",
    "all evaluations": "A listing holds evaluations that are open or failed; what ended well shows as allocations.",
    "every field of a listing": "Nomad's stubs lack a job's version and an allocation's `previous_allocation`, and the "
    "mark `timeout`, which comes on the stream alone.",
    "a refused stream is Misconfigured": "Nomad refuses a stream by silence. What the token lacks is found by asking "
    "for nodes and in each namespace that it sees; where all that is allowed, a dropped stream is the only cause left: "
    "Unavailable.",
    "a write that is not trusted is Misconfigured": "a server that wants another certificate, or TLS, may cut a "
    "request with a body before its reason is read: OutcomeUnknown. Reads always tell.",
    "what others use": "`foreign_*` of a node is known from listings; a node on the stream has 0 there.",
}
