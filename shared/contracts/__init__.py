"""The platform's whole vocabulary: commands, events, reasons, envelope, codec, routes, questions."""
