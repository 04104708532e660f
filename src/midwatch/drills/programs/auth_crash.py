"""Ends as an agent does whose key OpenAI refuses."""

import sys

from midwatch.drills.programs import stage

stage.wait_until_watched()
stage.count("starts")
stage.evidence()
sys.exit(
    "Traceback (most recent call last):\n"
    '  File "agent.py", line 12, in <module>\n'
    "    answer = client.chat.completions.create(model=MODEL, messages=messages)\n"
    "openai.AuthenticationError: Error code: 401 - {'error': {'message': 'Incorrect API key provided: "
    "sk-abcd****wxyz. You can find your API key at https://platform.openai.com/account/api-keys.', "
    "'type': 'invalid_request_error', 'param': None, 'code': 'invalid_api_key'}}"
)
