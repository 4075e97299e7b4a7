"""`python -m benchmarks.redacted_page`: the processor time of a page of 50 dead letters with errors of 4 kB.

150 ms are allowed. Each letter has four hidden values, and its error quotes one of them.
"""

from __future__ import annotations

import json
import random
import sys
import time

from rapids import DeadLetter
from rapids.redaction import MASK, Redactor
from rapids_fastapi.admin.redacted_letter import summary_of

LINE = '  File "/srv/shop/payments.py", line 87, in charge\n    raise Declined(f"card of {order_id!r}: {reason}")\n'
LETTERS, ROUNDS = 50, 7


def letter_of(number: int) -> DeadLetter:
    some = random.Random(number)  # noqa: S311 - not for secrets
    secret = f"S{some.getrandbits(90):x}"
    data = {
        "order_id": f"A-{number}",
        "customer": {"name": "Ann", "password": secret, "card_number": f"4111{some.randrange(10**12):012}"},
        "lines": [{"sku": f"A-{at}", "n": at} for at in range(10)],
        "authorization": f"Bearer {some.getrandbits(256):x}",
    }
    fields = {
        "original_msg_id": "1-1",
        "original_stream": "shop",
        "original_group": "payments",
        "handler": "charge",
        "reason": "max_deliveries_exceeded",
        "failed_at": "2026-01-01T00:00:00+00:00",
        "event_type": "order.placed",
        "id": "event-1",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "schema_version": "1",
        "data": json.dumps(data),
        "metadata": "{}",
        "error_type": "CardDeclined",
        "error": f"CardDeclined: declined for {secret}\n{LINE * 40}"[:4_096],
    }
    return DeadLetter.read(f"{number + 1}-0", [part.encode() for pair in fields.items() for part in pair])


def main() -> int:
    """Print the least time of some rounds; the exit code."""
    letters, redactor = [letter_of(number) for number in range(LETTERS)], Redactor.of(())
    spent: list[float] = []
    for _ in range(ROUNDS):
        began = time.process_time()
        page = [summary_of(letter, redactor) for letter in letters]
        spent.append(time.process_time() - began)
        assert all(MASK in one.error for one in page)
    print(f"{LETTERS} letters with errors of 4 kB: {min(spent) * 1000:.0f} ms of one processor, 150 allowed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
