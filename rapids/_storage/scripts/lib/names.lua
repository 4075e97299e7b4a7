-- Names from `keys.py`: the consumers that hold waiting and parked entries, that of entries which nobody holds, the group
-- that scripts ask for ids, and parts of key names.
local WAITING, PARKED, NOBODY = '$WAITING', '$PARKED', '$NOBODY'
local IDS = '$IDS'
local BESIDE, REPLAY_STREAM, FINGERPRINTS, ERRORS = '$BESIDE', '$REPLAY_STREAM', '$FINGERPRINTS', '$ERRORS'
local REPLAYS, PARKED_OF = '$REPLAYS', '$PARKED_OF'
