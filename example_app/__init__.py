"""Order fulfilment with Rapids: a small service to copy from, and a demo that runs it.

The service is `events.py`, `handlers.py`, `orders.py` and `app.py`; `outside.py` imitates a payment provider and a
courier. The demo, `python -m example_app`, is in `demo/`.
"""
