-- Names that `keys.py` gives: the consumers that hold what waits for its next delivery and what is parked, and parts of
-- the names of keys.
local WAITING, PARKED = '$WAITING', '$PARKED'
local REPLAY_STREAM, FINGERPRINTS, ERRORS = '$REPLAY_STREAM', '$FINGERPRINTS', '$ERRORS'
