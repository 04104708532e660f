"""What stays of telemetry, and whether more may come."""
