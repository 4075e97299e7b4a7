"""`make pins`: write the pins as the code is now. Review the difference before you commit it."""

from tests.pins import write_pins

write_pins()
