"""`python -m benchmarks`: what Rapids costs an event, beside a floor written by hand and the peers, on one machine."""
