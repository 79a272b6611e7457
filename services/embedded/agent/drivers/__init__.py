"""Task drivers of the embedded agent: what really starts, signals and ends a task."""
