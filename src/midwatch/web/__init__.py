"""Shows. The fleet as pages: rendered on the server, complete without JavaScript, live with it.

Whatever an agent says is hostile: templates escape everything, `words.plain` takes out what
would steer the terminal or turn the text around, and the Content-Security-Policy lets nothing
run that is not ours. Pages only read; actions go to the API.
"""

from midwatch.web.render import problem_page, wants_page
from midwatch.web.routes import OPEN_PATHS, build

__all__ = ["OPEN_PATHS", "build", "problem_page", "wants_page"]
