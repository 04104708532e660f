"""Counts the calls of the official OpenAI and Anthropic clients without the agent's help.

Both clients send every request through `request` of two base classes and return objects
with public names: a parsed answer with `usage`, a stream with `response`, a raw answer with
`http_response`. Only that method is wrapped, and of a response that is not read yet, two
methods of that one object. A client of another shape is left alone, and the reason is told
as `sdk.untracked`. A client that is imported later is wrapped when it is.
"""

from __future__ import annotations

import functools
import sys
import weakref

from midwatch.sdk import runtime, usage
from midwatch.sdk.calls import BodyReader, Call
from midwatch.sdk.plain import text
from midwatch.sdk.shield import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

OPERATIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "openai": (
        ("/chat/completions", "chat"),
        ("/responses", "chat"),
        ("/embeddings", "embeddings"),
        ("/completions", "text_completion"),
    ),
    "anthropic": (("/v1/messages", "chat"), ("/v1/complete", "text_completion")),
}
"""Which requests are model calls, by the end of their path, and what they are called."""

CALL_HEADER = "x-midwatch-call"
"""The gateway's id of the call: by it the hub knows that its span and ours tell of the same."""

_MARK = "_midwatch_original"
_BASE = "{}._base_client"
_CLASSES = (("SyncAPIClient", False), ("AsyncAPIClient", True))


def track_clients(names: Sequence[object]) -> None:
    """Count the calls of these clients from now on. Unknown names are told and skipped."""
    wanted: list[str] = []
    for name in names:
        if isinstance(name, str) and name in OPERATIONS:
            wanted.append(name)
        else:
            known = ", ".join(OPERATIONS)
            _untracked(text(name, 64), f"unknown client; known are {known}")
    for name in wanted:
        usage.tracking = True
        module = sys.modules.get(_BASE.format(name))
        if module is not None:
            wrap_client(name, module)
        elif not any(isinstance(f, _LaterImport) and f.client == name for f in sys.meta_path):
            sys.meta_path.insert(0, _LaterImport(name))


def wrap_client(client: str, module: ModuleType) -> None:
    """Wrap the base classes of one client, or tell why not."""
    with kept("track"):
        found: list[tuple[type, Any, bool]] = []
        for class_name, is_async in _CLASSES:
            owner = getattr(module, class_name, None)
            original = None if owner is None else owner.__dict__.get("request")
            reason = _unlike(owner, original, is_async=is_async)
            if reason is not None:
                _untracked(client, f"{class_name} {reason}")
                return
            if owner is not None and not hasattr(original, _MARK):
                found.append((owner, original, is_async))
        for owner, original, is_async in found:
            wrap = _wrap_async if is_async else _wrap_sync
            wrapped = wrap(client, original)
            setattr(wrapped, _MARK, original)
            owner.request = wrapped  # pyright: ignore[reportAttributeAccessIssue]


def unwrap_client(client: str) -> None:
    """Undo `wrap_client`: for tests."""
    module = sys.modules.get(_BASE.format(client))
    for class_name, _ in _CLASSES:
        owner = getattr(module, class_name, None)
        original = getattr(getattr(owner, "request", None), _MARK, None)
        if owner is not None and original is not None:
            owner.request = original
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _LaterImport)]


def _unlike(owner: object, original: object, *, is_async: bool) -> str | None:
    """Return what about a class is not as we know it, or None."""
    import inspect

    if not isinstance(owner, type):
        return "does not exist"
    if not inspect.isfunction(original):
        return "has no method request"
    if inspect.iscoroutinefunction(original) != is_async and not hasattr(original, _MARK):
        return "has a request of another kind"
    names = list(inspect.signature(original).parameters)
    if "options" not in names or "stream" not in names:
        return f"has a request with other arguments: {', '.join(names)}"
    return None


def _untracked(client: str, reason: str) -> None:
    now = runtime.current
    if now is not None:
        now.lose("untracked")
        now.event("sdk.untracked", {"client": client, "reason": reason})


class _LaterImport:
    """An import finder that wraps a client's base module as soon as it has been imported."""

    def __init__(self, client: str) -> None:
        self.client = client

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _BASE.format(self.client):
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        with kept("import"):
            return self._find(fullname, path, target)
        return None

    def _find(self, fullname: str, path: Any, target: Any) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            look = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if look is None else look(fullname, path, target)
            if spec is None:
                continue
            if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                spec.loader = _WrappingLoader(self.client, spec, spec.loader)  # pyright: ignore[reportAttributeAccessIssue]
            return spec
        return None


class _WrappingLoader:
    """Lets the real loader do its work, puts it back, and wraps the client."""

    def __init__(self, client: str, spec: ModuleSpec, loader: Any) -> None:
        self._client = client
        self._spec = spec
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._spec.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        wrap_client(self._client, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _wrap_sync(client: str, original: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _open_call(client, args, kwargs)
        if call is None:
            return original(self, *args, **kwargs)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            call.end(error)
            raise
        with kept("answer") as guard:
            _follow(call, result, is_async=False)
        if guard.failed:
            call.end()
        return result

    return request


def _wrap_async(client: str, original: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    async def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _open_call(client, args, kwargs)
        if call is None:
            return await original(self, *args, **kwargs)
        try:
            result = await original(self, *args, **kwargs)
        except BaseException as error:
            call.end(error)
            raise
        with kept("answer") as guard:
            _follow(call, result, is_async=True)
        if guard.failed:
            call.end()
        return result

    return request


def _open_call(client: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """Return the call that this request is, or None when it is none or nobody listens."""
    now = runtime.current
    if now is None:
        return None
    with kept("request"):
        options = kwargs.get("options") or (args[1] if len(args) > 1 else None)
        if str(getattr(options, "method", "")).lower() != "post":
            return None
        path = str(getattr(options, "url", "")).partition("?")[0]
        for end, operation in OPERATIONS[client]:
            if path.endswith(end):
                body = getattr(options, "json_data", None)
                model = body.get("model") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
                return Call(now, client, operation, text(model or "unknown", 128))
    return None


def _follow(call: Call, result: Any, *, is_async: bool) -> None:
    """Take the usage out of what the client returned, now or while it is being read."""
    response = getattr(result, "http_response", None)  # raw answers
    if response is None:
        response = getattr(result, "response", None)  # streams
    if response is None or not hasattr(response, "iter_bytes"):
        call.read(result)
        call.end()
        return
    carried = response.headers.get(CALL_HEADER)
    if carried:
        call.seen["call_id"] = text(carried, 128)
    reader = BodyReader(call, str(response.headers.get("content-type", "")).lower())
    if response.is_closed:  # it was read before it was returned
        reader.feed(response.content)
        reader.end()
        return
    follow = _follow_bytes_async if is_async else _follow_bytes
    follow(response, reader)
    # one that is dropped unread has ended too
    weakref.finalize(response, reader.end).atexit = False


def _follow_bytes(response: Any, reader: BodyReader) -> None:
    """Look at the bytes of this one response as they are read, and at its end.

    Response and functions refer to each other until it has been read. A stream that the
    agent drops half-read ends at once all the same: its generators are not in that cycle.
    """
    read_on, close = response.iter_bytes, response.close
    advancing = False

    def end(error: BaseException | None = None) -> None:
        reader.end(error)
        _release(response, iter_bytes=iter_bytes, close=closed)

    def iter_bytes(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        nonlocal advancing
        source = read_on(*args, **kwargs)
        ended: BaseException | None = None
        try:
            while True:
                advancing = True
                try:
                    chunk = next(source)
                except StopIteration:
                    break
                finally:
                    advancing = False
                reader.feed(chunk)
                yield chunk
        except BaseException as error:
            ended = error
            raise
        finally:
            source.close()
            end(ended)

    def closed(*args: Any, **kwargs: Any) -> Any:
        if not advancing:  # the agent closes it, not the end of the body
            end()
        return close(*args, **kwargs)

    response.iter_bytes, response.close = iter_bytes, closed


def _follow_bytes_async(response: Any, reader: BodyReader) -> None:
    """As `_follow_bytes`."""
    read_on, close = response.aiter_bytes, response.aclose
    advancing = False

    def end(error: BaseException | None = None) -> None:
        reader.end(error)
        _release(response, aiter_bytes=aiter_bytes, aclose=aclosed)

    async def aiter_bytes(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        nonlocal advancing
        source = read_on(*args, **kwargs)
        ended: BaseException | None = None
        try:
            while True:
                advancing = True
                try:
                    chunk = await anext(source)
                except StopAsyncIteration:
                    break
                finally:
                    advancing = False
                reader.feed(chunk)
                yield chunk
        except BaseException as error:
            ended = error
            raise
        finally:
            end(ended)
            await source.aclose()

    async def aclosed(*args: Any, **kwargs: Any) -> Any:
        if not advancing:
            end()
        return await close(*args, **kwargs)

    response.aiter_bytes, response.aclose = aiter_bytes, aclosed


def _release(response: Any, **ours: Any) -> None:
    """Put the response's own methods back: it is as it would have been."""
    for name, function in ours.items():
        if response.__dict__.get(name) is function:
            del response.__dict__[name]
