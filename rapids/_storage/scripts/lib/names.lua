-- Names from `keys.py`: the consumers that hold waiting and parked entries, and parts of key names.
local WAITING, PARKED = '$WAITING', '$PARKED'
local REPLAY_STREAM, FINGERPRINTS, ERRORS = '$REPLAY_STREAM', '$FINGERPRINTS', '$ERRORS'
