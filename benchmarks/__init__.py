"""`python -m benchmarks`: what an event costs with Rapids, a hand-written floor and the peers, on one machine."""
