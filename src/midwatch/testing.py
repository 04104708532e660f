"""What tests of agents use: see `midwatch.sdk.testing`."""

from midwatch.sdk.testing import MemoryNotifier, MemoryTransport, Recording, recording

__all__ = ["MemoryNotifier", "MemoryTransport", "Recording", "recording"]
