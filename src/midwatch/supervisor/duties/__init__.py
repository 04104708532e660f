"""All duties of a keeper, in the order in which they are told."""

from midwatch.supervisor.duties.children import Children
from midwatch.supervisor.duties.disk import Disk
from midwatch.supervisor.duties.family import Family
from midwatch.supervisor.duties.flood import Flood
from midwatch.supervisor.duties.limits import Limits
from midwatch.supervisor.duties.progress import Progress
from midwatch.supervisor.duties.prompt import Prompt
from midwatch.supervisor.duty import Duty

DUTIES: tuple[type[Duty], ...] = (Progress, Prompt, Limits, Flood, Disk, Children, Family)
