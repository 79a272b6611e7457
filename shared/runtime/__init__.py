"""Running a service: transactions with their outbox, relay, consuming, questions, health, logs, telemetry."""
