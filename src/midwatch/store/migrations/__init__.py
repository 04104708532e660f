"""Migrations of `state.db`, in the wheel, so that any installed version can bring a database up."""
