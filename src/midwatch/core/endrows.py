"""What programs print when they end: one table from their words to the class of the end. Pure.

Each row is one error of one tool; the tests hold, for each row, what that tool really printed. A row
needs words in their context, never a bare number: `429` in a path means nothing. What a row claims
has weight, a refused credential parks an agent at once: a row that cannot be sure asks for more (the
frames above, the exit code, that the run was young), or is left out, and the end stays a failure.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.endrow import EARLY_S as EARLY_S
from midwatch.core.endrow import Row as Row
from midwatch.core.endrow import row as _row
from midwatch.core.ends import End

_ERROR: Final = r"(?m)^(?:Uncaught )?(?:[\w$]{1,60}\.){0,8}"
"""The begin of an exception's line, with the modules that it may be named by."""

_SETTINGS_FILE: Final = r"'[^'\n]{0,200}?(?:\.(?:ya?ml|toml|ini|cfg|conf|env|properties)|\b(?:config|settings)[\w.-]{0,40})'"

_ABOUT_SETTINGS: Final = (
    r"(?i)\b(?:\w*_)?(?:config|settings|conf)\b|\.(?:ya?ml|toml|ini|cfg|conf)['\"]"
)

_GATEWAY: Final = (
    _row(
        "gateway-budget",
        End.BUDGET,
        "Midwatch's gateway: a call did not fit into the agent's own budget",
        r"\bmidwatch_budget: ",
    ),
    _row(
        "gateway-held",
        End.SUSPENDED,
        "Midwatch's gateway: the agent is suspended, or its calls went round in circles",
        r"\bmidwatch_(?:suspended|loop): ",
    ),
    _row(
        "gateway-policy",
        End.CONFIGURATION,
        "Midwatch's gateway: the fleet file's rules do not allow the call",
        r"\bmidwatch_policy: ",
    ),
)
"""Our own refusals come as 403 and 429, which mean something else when a provider says them."""

_QUOTA: Final = (
    _row(
        "openai-quota",
        End.QUOTA,
        "OpenAI, and clients that speak to it: the account's quota is used up",
        r"\binsufficient_quota\b|\bYou exceeded your current quota, please check your plan",
        credential="OPENAI_API_KEY",
        unless=r"RESOURCE_EXHAUSTED",
    ),
    _row(
        "anthropic-credit",
        End.QUOTA,
        "Anthropic: the prepaid credit is used up",
        r"\bYour credit balance is too low to access\b",
        credential="ANTHROPIC_API_KEY",
    ),
)

_RATE: Final = (
    _row(
        "client-rate-limit",
        End.RATE_LIMITED,
        "OpenAI, Anthropic, LiteLLM in Python and Node: too many requests or tokens",
        _ERROR + r"RateLimitError: |\brate_limit_(?:error|exceeded)\b",
    ),
    _row(
        "gemini-exhausted",
        End.RATE_LIMITED,
        "Gemini: 429 RESOURCE_EXHAUSTED; its quotas are per minute or per day and come back",
        r"\b429 RESOURCE_EXHAUSTED\b",
    ),
    _row(
        "anthropic-overloaded", End.RATE_LIMITED, "Anthropic: overloaded", r"\boverloaded_error\b"
    ),
    _row(
        "aws-throttling",
        End.RATE_LIMITED,
        "AWS, Bedrock among it: throttled",
        r"\(ThrottlingException\) when calling",
    ),
    _row(
        "http-429",
        End.RATE_LIMITED,
        "requests and httpx: the last answer was 429",
        _ERROR
        + r"HTTP(?:Status)?Error: (?:429 Client Error: |Client error '429 )Too Many Requests",
    ),
)

_CREDENTIALS: Final = (
    _row(
        "openai-key-refused",
        End.CREDENTIALS,
        "OpenAI, and what speaks its dialect: the key was refused",
        r"\bopenai\.AuthenticationError\b|\bIncorrect API key provided\b|'invalid_api_key'|You didn't provide an API key",
        credential="OPENAI_API_KEY",
    ),
    _row(
        "openai-key-missing",
        End.CREDENTIALS,
        "OpenAI: no key was given to the client",
        r"\bOpenAIError: (?:Missing credentials|The api_key client option must be set)",
        credential="OPENAI_API_KEY",
    ),
    _row(
        "openai-key-scope",
        End.CREDENTIALS,
        "OpenAI: the key may not do this",
        r"PermissionDeniedError: .{0,40}You have insufficient permissions for this operation\. Missing scopes",
        credential="OPENAI_API_KEY",
    ),
    _row(
        "anthropic-key-refused",
        End.CREDENTIALS,
        "Anthropic: the key was refused",
        r"\banthropic\.AuthenticationError\b|\binvalid x-api-key\b|x-api-key header is required",
        credential="ANTHROPIC_API_KEY",
    ),
    _row(
        "anthropic-key-missing",
        End.CREDENTIALS,
        "Anthropic: no key was given to the client",
        r"\bCould not resolve authentication method\. Expected",
        credential="ANTHROPIC_API_KEY",
    ),
    _row(
        "anthropic-key-scope",
        End.CREDENTIALS,
        "Anthropic: the key may not do this",
        r"\bYour API key does not have permission to use\b",
        credential="ANTHROPIC_API_KEY",
    ),
    _row(
        "gemini-key-refused",
        End.CREDENTIALS,
        "Gemini: the key was refused",
        r"\bAPI key not valid\. Please pass a valid API key|\bAPI_KEY_INVALID\b",
        credential="GEMINI_API_KEY",
    ),
    _row(
        "gemini-key-missing",
        End.CREDENTIALS,
        "Gemini: no key was given to the client",
        r"\bNo API key was provided\. Please pass a valid API key|\bMissing key inputs argument!",
        credential="GEMINI_API_KEY",
    ),
    _row(
        "aws-token",
        End.CREDENTIALS,
        "AWS: the token is expired or unknown",
        r"\((?:ExpiredToken|UnrecognizedClient)Exception\) when calling",
        credential="AWS_ACCESS_KEY_ID",
    ),
    _row(
        "aws-no-credentials",
        End.CREDENTIALS,
        "AWS: no credentials were found",
        r"\bNoCredentialsError: Unable to locate credentials",
        credential="AWS_ACCESS_KEY_ID",
    ),
    _row(
        "huggingface-token",
        End.CREDENTIALS,
        "Hugging Face: no token, or one without access",
        r"\bhuggingface_hub\.(?:\w+\.){1,3}(?:GatedRepo|LocalTokenNotFound)Error\b",
        credential="HF_TOKEN",
    ),
    _row(
        "github-token",
        End.CREDENTIALS,
        "GitHub: the token was refused",
        r"\b401 \{\"message\": \"Bad credentials\"",
        credential="GITHUB_TOKEN",
    ),
    _row(
        "python-env-key",
        End.CREDENTIALS,
        "Python: `os.environ[...]` of a variable that is a key, and is not set",
        _ERROR
        + r"KeyError: '[A-Z][A-Z0-9_]{0,60}(?:API_KEY|TOKEN|SECRET|ACCESS_KEY|_KEY|PASSWORD)'$",
        frames=r"File \"(?:<frozen os>|[^\"\n]{0,200}/os\.py)\", line \d+, in __getitem__",
    ),
    _row(
        "client-key-refused",
        End.CREDENTIALS,
        "LiteLLM, and clients built like OpenAI's: the provider refused the key",
        _ERROR + r"AuthenticationError: (?:litellm\.|(?:Error code: )?401\b)",
    ),
    _row(
        "http-401",
        End.CREDENTIALS,
        "requests and httpx: the last answer was 401",
        _ERROR
        + r"HTTP(?:Status)?Error: (?:401 Client Error: Unauthorized|401 Unauthorized|Client error '401 Unauthorized')",
        general=True,
    ),
)

_MEMORY: Final = (
    _row(
        "python-memory", End.OUT_OF_MEMORY, "Python: MemoryError", _ERROR + r"MemoryError(?:$|: )"
    ),
    _row(
        "node-heap",
        End.OUT_OF_MEMORY,
        "Node: the heap's limit",
        r"^FATAL ERROR: .{0,200}JavaScript heap out of memory",
    ),
    _row(
        "cpp-alloc",
        End.OUT_OF_MEMORY,
        "C++: std::bad_alloc",
        r"^terminate called after throwing an instance of 'std::bad_alloc'",
    ),
    _row(
        "rust-alloc",
        End.OUT_OF_MEMORY,
        "Rust: an allocation failed",
        r"^memory allocation of \d{1,20} bytes failed",
    ),
    _row(
        "java-heap",
        End.OUT_OF_MEMORY,
        "Java: OutOfMemoryError",
        r"^Exception in thread .{0,80}java\.lang\.OutOfMemoryError\b",
    ),
)

_DEPENDENCY: Final = (
    _row(
        "python-module",
        End.DEPENDENCY,
        "Python: a module that is not installed",
        _ERROR + r"ModuleNotFoundError: No module named ",
    ),
    _row(
        "python-m",
        End.DEPENDENCY,
        "`python -m` of a module that is not installed",
        r"^\S{1,300}: No module named \S+$",
    ),
    _row(
        "python-import-name",
        End.DEPENDENCY,
        "Python: a name that this version of a module does not have",
        _ERROR + r"ImportError: cannot import name ",
        unless=r"partially initialized module",
    ),
    _row(
        "python-distribution",
        End.DEPENDENCY,
        "Python: a distribution that is not installed",
        _ERROR + r"PackageNotFoundError: No package metadata was found for ",
    ),
    _row(
        "shared-library",
        End.DEPENDENCY,
        "the loader, or Python's: a shared library that is not there",
        r": cannot open shared object file: No such file or directory$",
    ),
    _row(
        "playwright-browser",
        End.DEPENDENCY,
        "Playwright: its browser is not installed",
        r"\bBrowserType\.launch: Executable doesn't exist at ",
    ),
    _row(
        "node-module",
        End.DEPENDENCY,
        "Node: a module or package that is not installed",
        r"^Error: Cannot find module '|^Error \[ERR_MODULE_NOT_FOUND\]: ",
    ),
    _row(
        "pip-requirement",
        End.DEPENDENCY,
        "pip: a requirement that no index has",
        r"^ERROR: (?:No matching distribution found for |Could not find a version that satisfies the requirement )",
        nowhere=r"after connection broken by",
    ),
    _row(
        "uv-spawn",
        End.DEPENDENCY,
        "uv: a program that is not there",
        r"^error: Failed to spawn: .{0,200}\n.*No such file or directory",
    ),
    _row(
        "shell-not-found",
        End.DEPENDENCY,
        "a shell or `env`, code 127: a program that is not there",
        r"^\S{1,100}: (?:line )?\d+: \S.{0,300}: (?:command )?not found$|^\S{1,100}: .{0,300}: cannot execute: required file not found$"
        r"|^env: .{0,300}: No such file or directory$",
        codes=(127,),
    ),
    _row(
        "walled-interpreter",
        End.DEPENDENCY,
        "bubblewrap: the interpreter that its program names (`#!`) is not there, or hidden",
        r"^bwrap: execvp .{0,300}: No such file or directory$",
        codes=(1,),
    ),
    _row(
        "container-program",
        End.DEPENDENCY,
        "Docker: a program that is not in the image",
        r"Error response from daemon: .{0,300}exec: .{0,200}(?:executable file not found in \$PATH|no such file or directory)",
        codes=(126, 127),
    ),
    _row(
        "container-image",
        End.DEPENDENCY,
        "Docker: an image that cannot be pulled",
        r"Error response from daemon: pull access denied for ",
        codes=(125,),
    ),
)

_CONFIGURATION: Final = (
    _row(
        "python-env",
        End.CONFIGURATION,
        "Python: `os.environ[...]` of a variable that is not set",
        _ERROR + r"KeyError: '[A-Z][A-Z0-9_]{0,80}'$",
        frames=r"File \"(?:<frozen os>|[^\"\n]{0,200}/os\.py)\", line \d+, in __getitem__",
    ),
    _row(
        "python-settings-file",
        End.CONFIGURATION,
        "Python: a settings file that is not there",
        _ERROR + r"FileNotFoundError: \[Errno 2\] No such file or directory: " + _SETTINGS_FILE,
        early=True,
    ),
    _row(
        "yaml-file",
        End.CONFIGURATION,
        "PyYAML: a file that is no YAML",
        r"^(?:ruamel\.)?yaml\.\w+\.\w+Error: [^\0]{0,400}\n\s+in \"[^\"<\n]+\", line \d+",
        early=True,
    ),
    _row(
        "json-settings",
        End.CONFIGURATION,
        "Python: settings that are no JSON",
        _ERROR + r"JSONDecodeError: ",
        frames=_ABOUT_SETTINGS,
        early=True,
    ),
    _row(
        "toml-settings",
        End.CONFIGURATION,
        "Python: settings that are no TOML",
        _ERROR + r"TOMLDecodeError: ",
        frames=_ABOUT_SETTINGS,
        early=True,
    ),
    _row(
        "pydantic-settings",
        End.CONFIGURATION,
        "pydantic-settings: a setting that is missing or wrong",
        r"(?:^|\.)ValidationError: \d+ validation errors? for \w+",
        frames=r"/pydantic_settings/",
    ),
    _row(
        "argparse",
        End.CONFIGURATION,
        "argparse, code 2: its arguments are wrong",
        r"^\S{1,200}: error: (?:the following arguments are required: |unrecognized arguments: |argument \S{1,100}: "
        r"|one of the arguments |ambiguous option: )",
        codes=(2,),
    ),
    _row(
        "click",
        End.CONFIGURATION,
        "click and Typer, code 2: its arguments are wrong",
        r"^Error: (?:Missing (?:option|argument|parameter|command)\b|No such (?:option|command)\b|Invalid value for "
        r"|Got unexpected extra argument)",
        codes=(2,),
    ),
    _row(
        "node-arguments",
        End.CONFIGURATION,
        "Node: its arguments are wrong",
        r"^TypeError \[ERR_PARSE_ARGS_\w+\]: ",
    ),
    _row(
        "node-undefined",
        End.CONFIGURATION,
        "Node: start-up code was given `undefined`, a variable that is not set for one",
        r"^TypeError \[ERR_INVALID_ARG_(?:TYPE|VALUE)\]: .{0,300}Received undefined[^\0]*(?:runMain|run_main|ModuleJob\.run)",
        early=True,
    ),
    _row(
        "node-settings-file",
        End.CONFIGURATION,
        "Node: a settings file that is not there",
        r"^(?:Uncaught )?Error: ENOENT: no such file or directory, open (?:"
        + _SETTINGS_FILE
        + r"|'[^'\n]{0,200}?\bconfig/[^'\n]{1,80}')",
        early=True,
    ),
    _row(
        "node-json",
        End.CONFIGURATION,
        "Node: a required file that is no JSON",
        r"^SyntaxError: \S{1,300}\.json: ",
        early=True,
    ),
    _row(
        "npm-package",
        End.CONFIGURATION,
        "npm: no package.json, or no such script in it",
        r"^npm (?:error|ERR!) (?:Missing script: |enoent Could not read package\.json: )",
    ),
    _row(
        "pip-file",
        End.CONFIGURATION,
        "pip: a requirements file that is not there",
        r"^ERROR: Could not open requirements file: ",
    ),
    _row(
        "script-file",
        End.CONFIGURATION,
        "an interpreter, code 2: the script of its command is not there",
        r"^\S{1,200}: can't open file '|^\S{1,100}: 0: cannot open \S.{0,300}: No such file$",
        codes=(2,),
    ),
    _row(
        "shell-denied",
        End.CONFIGURATION,
        "a shell, code 126: a program that may not be executed",
        r"^\S{1,100}: (?:line )?\d+: \S.{0,300}: (?:Permission denied|cannot execute: .{0,80})$",
        codes=(126,),
    ),
    _row(
        "openai-model",
        End.CONFIGURATION,
        "OpenAI: a model that does not exist, or not for this account",
        r"NotFoundError: .{0,80}The model `[^`\n]{0,100}` does not exist",
    ),
    _row(
        "anthropic-model",
        End.CONFIGURATION,
        "Anthropic: a model that does not exist",
        r"NotFoundError: .{0,100}'not_found_error', 'message': 'model: ",
    ),
)

ROWS: Final[tuple[Row, ...]] = (
    *_GATEWAY,
    *_QUOTA,
    *_RATE,
    *_CREDENTIALS,
    *_MEMORY,
    *_DEPENDENCY,
    *_CONFIGURATION,
)
"""All rows. The first that fits a statement has it: the more telling come first."""
