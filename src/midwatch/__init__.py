"""Midwatch runs AI agents unattended and keeps the night watch over them."""
