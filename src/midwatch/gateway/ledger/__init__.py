"""What calls cost, and what they may: reservations, settlements and budgets, durable and shared by all gateways."""
