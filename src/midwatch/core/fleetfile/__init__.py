"""From the text of a fleet file to a `core.fleet.Fleet`, or to every problem in it at once.

`document` reads YAML and remembers places; `syntax` says what is wrong with text that is not YAML;
`schema` knows the shape, `words` says what does not fit it; `reader` puts them together; `host` asks
whether this machine can start the fleet, `calls` whose model calls will go past the gateway.
"""

from midwatch.core.fleetfile.calls import call_notes
from midwatch.core.fleetfile.reader import FIRST_FLEET, FleetFile, check_conditions, load, read

__all__ = ["FIRST_FLEET", "FleetFile", "call_notes", "check_conditions", "load", "read"]
