"""Ends as an agent does whose key OpenAI refuses."""

import os
import sys
import time
from pathlib import Path

work = Path(os.environ["DRILL_DIR"])
with (work / "starts").open("a") as starts:
    starts.write(f"{time.time()}\n")
time.sleep(0.2)
(work / "evidence").write_text(str(time.time()))
sys.exit(
    "Traceback (most recent call last):\n"
    '  File "agent.py", line 12, in <module>\n'
    "    answer = client.chat.completions.create(model=MODEL, messages=messages)\n"
    "openai.AuthenticationError: Error code: 401 - {'error': {'message': 'Incorrect API key provided: "
    "sk-abcd****wxyz. You can find your API key at https://platform.openai.com/account/api-keys.', "
    "'type': 'invalid_request_error', 'param': None, 'code': 'invalid_api_key'}}"
)
