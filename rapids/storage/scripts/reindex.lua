-- Forget the index of a dead-letter stream, so that it is made anew.
--
-- KEYS  index
-- with indexing
drop_index(KEYS[1])
