"""Limits of telemetry. Each is a promise to senders: what is over one is clipped or refused alone, and counted."""

from __future__ import annotations

MAX_SPANS = 10_000
"""Spans, points or log records of one request; what stands behind them is refused by partial success."""

MAX_SPAN_BYTES = 8 * 1024 * 1024
"""Encoded size of one span, point or log record; a larger one is refused, its neighbours are kept."""

MAX_ATTRIBUTES = 512
"""Attributes of one span, event, link, resource or scope after indexed ones are folded; what follows is dropped."""

MAX_ATTRIBUTE = 32_768
"""Characters of one attribute's value as JSON; longer text is clipped, a longer list or object is dropped."""

MAX_KEY = 256
"""Characters of an attribute's key; an attribute with a longer one is dropped."""

MAX_CONTENT = 1024 * 1024
"""Characters of one content (a prompt, an answer, a tool's result); longer ones are clipped at the end."""

MAX_CONTENTS = 64
"""Contents of one span; what follows is dropped."""

MAX_EVENTS = 512
"""Events of one span; what follows is dropped."""

MAX_LINKS = 256
"""Links of one span; what follows is dropped."""

MAX_DEPTH = 32
"""Nesting of attribute values; what lies deeper becomes null."""

MAX_BUCKETS = 512
"""Buckets of one histogram point; a point with more is refused."""

MAX_LABEL = 256
"""Characters of what is counted by: session, user, model, tool, ids of calls. Longer ones are clipped."""

MAX_TEXT = 8_192
"""Characters of a name or of a status message; longer ones are clipped."""

MAX_DURATION_NS = 90 * 86_400 * 10**9
"""Ninety days: a span that is said to take longer is kept with this duration."""

MAX_OPEN = 50_000
"""Spans that are open at one time; what is announced beyond is seen when it ends."""
