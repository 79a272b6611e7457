"""The gateway: the public API, job views, the event log that users see. Never touches Nomad, never changes a job."""
