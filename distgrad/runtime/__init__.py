"""Everything between the driver and its workers: sessions, messages, transports and collectives."""
