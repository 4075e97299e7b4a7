-- The consumers that hold what waits for its next delivery, and what is parked. `keys.py` names them.
local WAITING, PARKED = '$WAITING', '$PARKED'
